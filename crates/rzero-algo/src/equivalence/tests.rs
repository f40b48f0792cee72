//! Verdicts and classes: their laws, and what each form is and is not equal to.

use super::*;
use crate::normalize::canonical_answer;
use proptest::prelude::*;

#[test]
fn each_form_equals_its_other_spellings_and_nothing_else() {
    // Gold; equal predictions; others.
    let rows: [(&str, &[&str], &[&str]); 43] = [
        ("0.5", &["1/2", r"\frac{2}{4}", "$.50$", "50/100", "2^{-1}", "0.5000"], &["0.05", "0.500000001", "5"]),
        ("1/3", &[r"0.\overline{3}", r"\frac13", "2/6", "0.333333333333333"], &["0.333", "0.3333333333"]),
        ("12345678901234567890", &["12,345,678,901,234,567,890"], &["12345678901234567891"]),
        ("7/4", &["1.75", r"1\frac{3}{4}", "1 3/4", "1¾"], &["1.3/4", "3/4"]),
        ("3e8", &[r"3 \times 10^8", "300000000", "3E8"], &["3e7"]),
        (r"2\sqrt{3}", &[r"\sqrt{12}", r"\frac{6}{\sqrt3}", "2*3^{1/2}", "2√3"], &[r"3\sqrt{2}", "3.4641"]),
        (r"\frac{1}{2-\sqrt{3}}", &[r"2+\sqrt3"], &[r"2-\sqrt3"]),
        (r"\sqrt{3+2\sqrt{2}}", &[r"1+\sqrt{2}"], &[r"1+\sqrt{3}"]),
        (r"\sqrt[3]{-8}", &["-2"], &["2"]),
        (r"\cos\frac{\pi}{3}", &["1/2", r"\sin 30^\circ"], &[r"\cos 3"]),
        (r"\ln 8", &[r"3\ln 2", r"\log 8"], &[r"\ln 9"]),
        (r"\log_4 8", &["3/2"], &["2"]),
        ("e^{i\\pi}", &["-1"], &["1"]),
        ("5!", &["120"], &["24"]),
        (r"\binom{5}{2}", &["10"], &["20"]),
        (r"(x+y)^2", &["x^2+2xy+y^2", "y^2+x^2+2*x*y"], &["x^2+y^2"]),
        (r"\frac{x^2-1}{x-1}", &["x+1"], &["x-1"]),
        (r"\frac{n!}{(n-1)!}", &["n"], &["n-1"]),
        (r"\sin 2x", &[r"2\sin x\cos x"], &[r"2\sin x"]),
        ("2^{x+1}", &[r"2\cdot 2^x"], &["2^x+1"]),
        ("|x|", &[r"\sqrt{x^2}"], &["x"]),
        (r"\sum_{k=1}^{10} k^2", &["385"], &["55"]),
        (r"\int_0^1 x^2 dx", &[r"\frac13"], &["1/2"]),
        ("(1, 2)", &[r"\left(1,2\right)", "(1;2)", r"\begin{pmatrix}1\\2\end{pmatrix}"], &["(2, 1)", "[1,2]", "1, 2"]),
        (r"\{1, 2\}", &["2, 1", "x = 1 or x = 2", r"1 \text{ and } 2"], &["1", "1, 2, 3"]),
        (r"1 \pm \sqrt{2}", &[r"1+\sqrt2, 1-\sqrt2"], &[r"1+\sqrt{2}"]),
        ("x > 3", &["3 < x", r"(3, \infty)", "2x - 6 > 0"], &["x \\ge 3", "x < 3", "y > 3"]),
        (r"|x| \le 2", &["[-2, 2]", "-2 <= x <= 2"], &["[0, 2]"]),
        (r"x \ne 2", &["x != 2"], &["x = 2"]),
        ("x^2 + y^2 = 1", &["1 - x^2 = y^2", "2x^2 + 2y^2 - 2 = 0"], &["x^2 + y^2 = 2"]),
        ("y = 2x + 3", &["2x+3", "2x - y + 3 = 0", "f(x) = 2x+3"], &["y = 3x + 2"]),
        (
            r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
            &[r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"],
            &[r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"],
        ),
        (r"10 \text{ cm}", &["10", "10 cm", "10 centimeters"], &["10 m", "11 cm"]),
        ("50\\%", &["50", "0.5", "50 percent"], &["5", "0.05"]),
        ("90^\\circ", &["90", "\\pi/2", "90 degrees"], &["9"]),
        ("2:3", &["4:6", "2/3"], &["3:2"]),
        ("1011_2", &["1011_{2}"], &["11", "1011", "1011_3"]),
        ("C", &["(C)", "c", r"\textbf{(C)}", "C. 12"], &["D", "C, D", "12"]),
        ("1, 0, 0", &["1,0,0"], &["0, 1, 0", "1, 0, 1", "1, 0"]),
        (r"\lfloor n/2 \rfloor", &[r"\left\lfloor\frac{n}{2}\right\rfloor"], &[r"\lfloor n/3 \rfloor"]),
        ("np.arcsin(10/13)", &[r"\arcsin\frac{10}{13}"], &["np.arcsin(10/14)"]),
        ("no solution", &["No solutions.", r"\text{no solution}"], &["no idea at all", "0"]),
        ("9^{9^{9^9}}", &["9^{9^{9^9}}"], &["9^{9^9}", "9"]),
    ];
    for (gold, equal, others) in rows {
        for pred in equal {
            assert_eq!(
                verdict(gold, pred, &GradeOptions::default()).0,
                Verdict::Equal,
                "{gold} = {pred}: {:?}",
                grade(gold, pred, &GradeOptions::default())
            );
            assert!(equivalent(pred, gold), "{pred} = {gold}");
        }
        for pred in others {
            assert_ne!(
                verdict(gold, pred, &GradeOptions::default()).0,
                Verdict::Equal,
                "{gold} # {pred}: {:?}",
                grade(gold, pred, &GradeOptions::default())
            );
            assert!(!equivalent(pred, gold), "{pred} # {gold}");
        }
    }
}

#[test]
fn a_rounded_gold_is_a_licence_that_must_be_given() {
    let rounded = GradeOptions { is_gold_rounded: true };
    for (gold, pred, is_equal) in [
        ("0.33", "1/3", true),
        ("0.33", "0.334", true),
        ("0.33", "0.336", false),
        (r"4.5 \times 10^{33}", "4.54e33", true),
        ("1/3", "0.33", false),
        ("12", "12.1", false),
    ] {
        assert_eq!(verdict(gold, pred, &rounded).0 == Verdict::Equal, is_equal, "{gold} {pred}");
        assert_ne!(verdict(gold, pred, &GradeOptions::default()).0, Verdict::Equal, "{gold} {pred}");
    }
}

#[test]
fn what_cannot_be_told_is_unknown_and_says_why() {
    let reason = |gold: &str, pred: &str| grade(gold, pred, &GradeOptions::default());
    let heavy = reason("5", "9^9^9^9");
    assert_eq!((heavy.verdict, heavy.reason), (Verdict::Unknown, GradeReason::TooMuchWork));
    assert_eq!(reason("", "5").reason, GradeReason::UnreadableGold);
    assert_eq!(reason("5", "1/0").reason, GradeReason::UnreadablePrediction);
    assert_eq!(reason("5", r"\frac{x}{0}").verdict, Verdict::Unknown);
    assert_eq!(grade_response("5", "I do not know", Extraction::Box, &GradeOptions::default()).reason, GradeReason::NoAnswer);
}

#[test]
fn a_bare_answer_joins_a_class_only_where_there_is_one() {
    for (answers, expected) in [
        (vec!["10", "10 cm", "10"], vec![0, 0, 0]),
        (vec!["10", "10 cm", "10 m"], vec![0, 1, 2]),
        (vec!["50%", "50", "1/2"], vec![0, 0, 1]),
        (vec!["50%", "1/2"], vec![0, 0]),
        (vec!["x = 5", "5", "y = 5"], vec![0, 1, 2]),
        (vec!["sqrt(2)", "2/sqrt(2)", "3"], vec![0, 0, 1]),
    ] {
        let numbers = classes(&answers);
        let mut seen: Vec<usize> = Vec::new();
        let named: Vec<usize> = numbers
            .iter()
            .map(|number| {
                seen.iter().position(|other| other == number).unwrap_or_else(|| {
                    seen.push(*number);
                    seen.len() - 1
                })
            })
            .collect();
        assert_eq!(named, expected, "{answers:?}");
    }
}

/// Pieces of answers, in all the ways that the grader knows, and of what it does not.
fn answers() -> impl Strategy<Value = String> {
    prop_oneof![
        "[-+]?[0-9]{1,3}(\\.[0-9]{1,2})?(%| cm| m)?",
        r"(\\frac|\\sqrt|\\text|\\left|\\right|\\pm|\\cup|\\pi|\\infty|\\sum_|\\int_|\\log_|\\sin|[0-9a-z+*/^_=<>(){}|!,;:%. $-]|\[|\]){0,24}",
        r"[0-9]{1,2}(\^[0-9]{1,3}){0,4}!?",
        "\\PC{0,20}",
        Just("x^2+2x+1".to_owned()),
        Just("(x+1)^2".to_owned()),
        Just(r"\{1,2\}".to_owned()),
        Just("(1,2)".to_owned()),
    ]
}

#[test]
fn what_a_command_leaves_behind_is_read_as_it_would_be_again() {
    for text in ["\\\\`\u{a4d0}", "\\\\text{}text{blue} whale", ".\\,. whale"] {
        let form = canonical_answer(text).expect(text);
        assert_eq!(canonical_answer(&form), Some(form.clone()), "{text}");
    }
}

#[test]
fn what_is_worked_out_is_worked_out_only_as_far_as_it_can_be_read_again() {
    for large in [
        "30^37^2",
        "9^2000",
        "9^2097",
        "2^6000",
        "99^999",
        "9^3000",
        "6^4!",
        "-999!x",
        r"\binom{9000}{1400}",
        "1/9^2100",
        "999!+x/998!",
    ] {
        let form = canonical_answer(large).expect(large);
        assert_eq!(canonical_answer(&form).map(|again| equivalent(&form, &again)), Some(true), "{large}");
    }
}

proptest! {
    #[test]
    fn a_verdict_is_total_reflexive_and_symmetric(left in answers(), right in answers()) {
        let options = GradeOptions::default();
        let (there, back) = (verdict(&left, &right, &options), verdict(&right, &left, &options));
        prop_assert_eq!(there.0, back.0, "{} | {}", left, right);
        if canonical_answer(&left).is_some() {
            prop_assert_eq!(verdict(&left, &left, &options).0, Verdict::Equal, "{}", left);
        }
    }

    #[test]
    fn a_form_reads_back_as_itself(raw in answers()) {
        if let Some(form) = canonical_answer(&raw) {
            let again = canonical_answer(&form);
            prop_assert_eq!(again.as_deref().map(|again| equivalent(&form, again)), Some(true), "{} -> {} -> {:?}", raw, form, again);
        }
    }

    #[test]
    fn classes_do_not_depend_on_the_order(all in prop::collection::vec(prop_oneof!["[0-2](%| cm| m)?", "[1-4]/[1-4]", "[ab]", "[xy] = [0-1]", "sqrt\\([1-4]\\)"], 1..12), seed: u64) {
        let forms: Vec<String> = all.iter().filter_map(|raw| canonical_answer(raw)).collect();
        let forms: Vec<&str> = forms.iter().map(String::as_str).collect();
        let key = crate::seed::StreamKey { run_seed: seed, iteration: 1, phase: rzero_schema::vocab::Phase::Solver, step: 1, row: 0, sample: 0 };
        let order = crate::seed::permutation(forms.len(), &mut crate::seed::random_stream("shuffle", &key));
        let shuffled: Vec<&str> = order.iter().map(|&row| forms[row]).collect();
        let (before, after) = (classes(&forms), classes(&shuffled));
        for (i, &row_i) in order.iter().enumerate() {
            for (j, &row_j) in order.iter().enumerate() {
                prop_assert_eq!(before[row_i] == before[row_j], after[i] == after[j], "{} {}", forms[row_i], forms[row_j]);
            }
        }
    }
}
