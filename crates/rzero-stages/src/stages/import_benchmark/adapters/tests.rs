//! Made-up problems of every benchmark, as it is published and in the plain shape.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use super::*;
use serde_json::json;

fn read_as(adapter: &str, row: Value) -> Result<Problem, Unusable> {
    let Value::Object(row) = row else { panic!("a row is an object") };
    adapter_named(adapter).unwrap().read(&row, None)
}

/// Id, question, options joined, answer, subject and level of a row.
fn told(adapter: &str, row: Value) -> [String; 6] {
    let problem = read_as(adapter, row.clone()).unwrap_or_else(|reason| panic!("{adapter} {row}: {reason}"));
    let text = |text: Option<String>| text.unwrap_or_default();
    [
        text(problem.id),
        problem.question,
        problem.options.join("|"),
        problem.answer,
        text(problem.subject),
        problem.level.to_string(),
    ]
}

#[test]
fn every_benchmark_is_read_as_it_is_published() {
    let cases: [(&str, Value, [&str; 6]); 20] = [
        ("gsm8k", json!({"question": "q", "answer": "1 #### of 2.\n<<1+2=3>>3\n#### 1,003"}), ["", "q", "", "1,003", "", "1"]),
        (
            "math500",
            json!({"problem": "q", "solution": "s", "answer": r"\frac12", "subject": "Algebra", "level": 3, "unique_id": "test/1.json"}),
            ["test/1.json", "q", "", r"\frac12", "Algebra", "3"],
        ),
        (
            "math500",
            json!({"problem": "q", "answer": "3", "type": "Algebra", "level": "Level 5"}),
            ["", "q", "", "3", "Algebra", "5"],
        ),
        (
            "minerva_math",
            json!({"problem": "q", "solution": r"\boxed{1} then \boxed{2 \mathrm{~m}}", "type": "Optics", "idx": 0}),
            ["0", "q", "", r"2 \mathrm{~m}", "Optics", "1"],
        ),
        (
            "olympiadbench",
            json!({"id": 7, "question": "q", "context": "Let $x$.", "final_answer": ["$1$", "$2$"], "is_multiple_answer": true,
                "answer_type": "Numerical", "subject": "Math", "subfield": "Algebra"}),
            ["7", "Let $x$.\nq", "", "$1$, $2$", "Algebra", "1"],
        ),
        ("olympiadbench", json!({"question": "q", "context": null, "final_answer": ["3"]}), ["", "q", "", "3", "", "1"]),
        ("amc23", json!({"id": 4, "problem": "q", "answer": 27.0}), ["4", "q", "", "27", "", "1"]),
        (
            "aime24",
            json!({"ID": "2024-I-1", "Problem": "q", "Solution": "s", "Answer": 204}),
            ["2024-I-1", "q", "", "204", "", "1"],
        ),
        ("aime24", json!({"id": 60, "problem": "q", "solution": r"so \boxed{204}"}), ["60", "q", "", "204", "", "1"]),
        ("aime25", json!({"problem_idx": 1, "problem": "q", "answer": "070"}), ["1", "q", "", "070", "", "1"]),
        ("aime25", json!({"question": "q", "answer": "70"}), ["", "q", "", "70", "", "1"]),
        (
            "mmlu_pro",
            json!({"question_id": 128, "question": "q", "options": ["a", "b", "c"], "answer": "C", "answer_index": 2, "category": "law"}),
            ["128", "q", "a|b|c", "C", "law", "1"],
        ),
        ("mmlu_pro", json!({"question": "q", "options": ["a", 2], "answer_index": 1}), ["", "q", "a|2", "B", "", "1"]),
        (
            "supergpqa",
            json!({"uuid": "u", "question": "q", "options": ["B", "A"], "answer": "B", "answer_letter": "A", "discipline": "Law",
                "field": "f", "difficulty": "middle"}),
            ["u", "q", "B|A", "A", "Law", "2"],
        ),
        ("bbeh", json!({"input": "q", "target": "D, A, A", "task": "shuffled"}), ["", "q", "", "D, A, A", "shuffled", "1"]),
        (
            "svamp",
            json!({"ID": "chal-1", "Body": "He has 3", "Question": "How many?", "Equation": "( 3 )", "Answer": 3.0, "Type": "Addition"}),
            ["chal-1", "He has 3. How many?", "", "3", "Addition", "1"],
        ),
        (
            "svamp",
            json!({"Body": "He has 3.", "Question": "How many?", "Answer": "3.0"}),
            ["", "He has 3. How many?", "", "3", "", "1"],
        ),
        ("bigbench_arithmetic", json!({"inputs": "q", "targets": ["109", "one"]}), ["", "q", "", "109", "", "1"]),
        ("bigbench_arithmetic", json!({"input": "q", "target_scores": {"5": 0, "6": 1}}), ["", "q", "", "6", "", "1"]),
        (
            "reasoning_gym",
            json!({"question": "q", "answer": "4", "metadata": {"source_dataset": "gcd", "source_index": 3}}),
            ["", "q", "", "4", "gcd", "1"],
        ),
    ];
    for (adapter, row, expected) in cases {
        assert_eq!(told(adapter, row.clone()), expected, "{adapter} {row}");
    }
}

#[test]
fn every_adapter_reads_the_plain_shape() {
    for adapter in &ADAPTERS {
        let mut row = json!({"id": "i", "question": "q", "answer": "B", "subject": "s", "level": 2, "source": "o"});
        row["options"] = json!(["x", "y"]);
        assert_eq!(told(adapter.name, row.clone()), ["i", "q", "x|y", "B", "s", "2"], "{}", adapter.name);
        if !adapter.needs_options {
            row["options"] = Value::Null;
            assert_eq!(told(adapter.name, row), ["i", "q", "", "B", "s", "2"], "{}", adapter.name);
        }
    }
    let parts = json!({"question": "q", "answer": "1", "answers": ["1", "2"]});
    assert_eq!(told("olympiadbench", parts)[3], "1, 2");
    // A table without lists holds them as text.
    assert_eq!(told("plain", json!({"question": "q", "answer": "A", "options": "[\"x\", \"y\"]"}))[2], "x|y");
    assert_eq!(told("plain", json!({"question": "q", "answer": "A", "options": ""}))[2], "");
}

#[test]
fn what_is_no_problem_has_a_reason() {
    let many: Vec<String> = (0..27).map(|at| at.to_string()).collect();
    for (adapter, row, reason) in [
        ("plain", json!({"answer": "1"}), Unusable::NoQuestion),
        ("plain", json!({"question": " ", "answer": "1"}), Unusable::NoQuestion),
        ("plain", json!({"question": "q", "answer": null}), Unusable::NoAnswer),
        ("plain", json!({"question": "q", "answer": ["1"]}), Unusable::NoAnswer),
        ("gsm8k", json!({"question": "q", "answer": "worked ####  "}), Unusable::NoAnswer),
        ("minerva_math", json!({"problem": "q", "solution": r"no box, or \boxed{open"}), Unusable::NoAnswer),
        ("olympiadbench", json!({"question": "q", "final_answer": []}), Unusable::NoAnswer),
        ("svamp", json!({"Body": "b", "Question": "q", "Answer": ""}), Unusable::NoAnswer),
        ("mmlu_pro", json!({"question": "q", "answer": "A"}), Unusable::NoOptions),
        ("mmlu_pro", json!({"question": "q", "answer_index": 26, "options": ["a", "b"]}), Unusable::NoAnswer),
        ("mmlu_pro", json!({"question": "q", "answer": "C", "options": ["a", "b"]}), Unusable::OutsideOptions),
        ("supergpqa", json!({"question": "q", "answer": "b", "options": ["a", "b"]}), Unusable::OutsideOptions),
        ("plain", json!({"question": "q", "answer": "A", "options": ["a"]}), Unusable::BadOptions),
        ("plain", json!({"question": "q", "answer": "A", "options": ["a", null]}), Unusable::BadOptions),
        ("plain", json!({"question": "q", "answer": "A", "options": "['a' 'b']"}), Unusable::BadOptions),
        ("plain", json!({"question": "q", "answer": "A", "options": many}), Unusable::BadOptions),
    ] {
        assert_eq!(read_as(adapter, row.clone()).unwrap_err(), reason, "{adapter} {row}");
    }
}

#[test]
fn the_name_of_a_file_chooses_the_adapter() {
    for (name, adapter) in [
        ("math500", "math500"),
        ("MATH-500", "math500"),
        ("math_500_test", "math500"),
        ("mmlu_pro_sample500", "mmlu_pro"),
        ("MMLU-Pro", "mmlu_pro"),
        ("SuperGPQA-all", "supergpqa"),
        ("minerva", "minerva_math"),
        ("aime_2024", "aime24"),
        ("aime2025", "aime25"),
        ("bigbench_arithmetic_2digit", "bigbench_arithmetic"),
        ("rg_easy", "reasoning_gym"),
        ("reasoning-gym", "reasoning_gym"),
        ("bbeh_mini", "bbeh"),
        ("math5000", "plain"),
        ("mmlu", "plain"),
        ("rg_configs", "plain"),
        ("", "plain"),
        ("añ-ö", "plain"),
    ] {
        assert_eq!(adapter_for(name).name, adapter, "{name}");
    }
    assert!(adapter_named("Plain").is_some() && adapter_named("math500_test").is_none() && adapter_named("").is_none());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { failure_persistence: None, cases: 256, ..Default::default() })]

    /// No row, whatever is in it, does more than be refused; what is read has a question, an answer, and a letter that is one of its options.
    #[test]
    fn any_row_is_read_or_refused(
        fields in proptest::collection::vec((0usize..16, 0usize..12, "\\PC{0,12}"), 0..8),
        adapter in 0..ADAPTERS.len(),
    ) {
        const NAMES: [&str; 16] = ["id", "question", "answer", "options", "level", "solution", "final_answer", "answers", "metadata", "Body",
            "Question", "Answer", "problem", "targets", "target_scores", "answer_index"];
        let value = |kind: usize, text: String| match kind {
            0 => Value::Null,
            1 => json!(text.len()),
            2 => json!([text, "x"]),
            3 => json!({"source_dataset": text}),
            4 => json!("A"),
            5 => json!("[\"x\", \"y\"]"),
            6 => json!(-1.5e300),
            7 => json!([]),
            _ => json!(text),
        };
        let row: Row = fields.into_iter().map(|(name, kind, text)| (NAMES[name].to_owned(), value(kind, text))).collect();
        if let Ok(problem) = ADAPTERS[adapter].read(&row, None) {
            proptest::prop_assert!(!problem.question.is_empty() && !problem.answer.is_empty());
            let letters: Vec<String> = (0..problem.options.len()).filter_map(letter_at).collect();
            proptest::prop_assert!(problem.options.is_empty() || letters.contains(&problem.answer));
        }
    }
}
