//! Which letter a completion chooses: each rule, and everything that is no choice.

use super::*;
use proptest::prelude::*;

fn options() -> Vec<String> {
    ["12 cm", "14 cm", "Blue whale.", r"$\frac{1}{2}$", "none of these"].map(str::to_owned).to_vec()
}

fn boxed(content: &str) -> Result<char, AnswerStatus> {
    read_choice(&format!("So it is \\boxed{{{content}}}."), &options(), Extraction::Box)
}

#[test]
fn a_letter_in_the_box_is_a_choice_however_it_is_set() {
    for content in [
        "B",
        "b",
        "(B)",
        "(b)",
        "[B]",
        "B)",
        "B]",
        "B.",
        "B:",
        "(B).",
        "(B):",
        " B ",
        "$B$",
        r"\(B\)",
        r"\text{B}",
        r"\text{(B)}",
        r"\textbf{(B)}",
        r"\mathrm{B}",
        r"\textbf{(B) }",
        r"( B )",
        "B. 14 cm",
        "B) 14 cm",
        "(B) 14 cm",
        "B: 14  CM",
        "B - 14 cm",
        r"\textbf{(B)}\ 14 cm",
        r"\textbf{(B) } 14 \text{ cm}",
        r"\text{B) } 14~cm",
        "B 14 cm",
    ] {
        assert_eq!(boxed(content), Ok('B'), "{content}");
    }
    assert_eq!(boxed("C. blue  Whale"), Ok('C'));
    assert_eq!(read_choice(r"\boxed{A} or rather \boxed{E}", &options(), Extraction::Box), Ok('E'));
}

#[test]
fn the_text_of_exactly_one_option_is_a_choice() {
    for (content, expected) in [
        ("14 cm", Ok('B')),
        (r"\text{Blue Whale}", Ok('C')),
        (r"\frac{1}{2}", Ok('D')),
        ("1/2", Ok('D')),
        ("0.5", Ok('D')),
        ("None of these.", Ok('E')),
        ("13 cm", Err(AnswerStatus::NotReadable)),
        ("whale", Err(AnswerStatus::NotReadable)),
    ] {
        assert_eq!(boxed(content), expected, "{content}");
    }
    let twice = ["7", "7.0", "8"].map(str::to_owned);
    let read = |content: &str| read_choice(&format!("\\boxed{{{content}}}"), &twice, Extraction::Box);
    assert_eq!(read("7"), Ok('A'), "the same words come before what the grader calls equal");
    assert_eq!(read("14/2"), Err(AnswerStatus::NotReadable), "equal to two options");
    assert_eq!(read("8"), Ok('C'));
    // A letter is what was asked for, whatever the options say.
    let letters = ["B", "A", "x"].map(str::to_owned);
    assert_eq!(read_choice(r"\boxed{B}", &letters, Extraction::Box), Ok('B'));
    assert_eq!(read_choice(r"\boxed{x}", &letters, Extraction::Box), Ok('C'), "no letter of an option, but the text of one");
}

#[test]
fn whatever_is_no_choice_is_unreadable_and_never_guessed() {
    for content in [
        "A, B",
        "A and B",
        "AB",
        "(A)(B)",
        "A or B",
        "F",
        "(Z)",
        "é",
        "A. 14 cm",
        "B because it fits",
        "Because",
        "answer",
        "ABBA",
        "(B",
        "1",
        "?",
        r"\text{}",
        "{B",
    ] {
        let read = boxed(content);
        assert!(read.is_err(), "{content}: {read:?}");
    }
    assert_eq!(boxed("A, B"), Err(AnswerStatus::NotReadable));
    assert_eq!(boxed(&"B".repeat(5_000)), Err(AnswerStatus::AnswerTooLong));
    assert_eq!(boxed(" "), Err(AnswerStatus::EmptyBox));
    assert_eq!(read_choice("the answer is B", &options(), Extraction::Box), Err(AnswerStatus::NoBox));
    assert_eq!(read_choice(r"\boxed{A", &options(), Extraction::Box), Err(AnswerStatus::UnbalancedBox));
}

#[test]
fn beyond_the_box_only_a_phrase_or_a_lone_letter_counts() {
    let read = |text: &str, extraction| read_choice(text, &options(), extraction).ok();
    for (text, by_phrase, by_last) in [
        ("The answer is (C).", Some('C'), Some('C')),
        ("Answer: C", Some('C'), Some('C')),
        ("**Answer:** C. Blue whale", Some('C'), Some('C')),
        ("The correct answer is **option (C)**. It is the largest.", Some('C'), Some('C')),
        ("The answer is 14 cm.", Some('B'), Some('B')),
        ("the ANSWER IS:\nd", Some('D'), Some('D')),
        ("First the answer is A. But no: the answer is B.", Some('B'), Some('B')),
        ("The answer is a large whale", None, None),
        ("The answer is A or B.", None, None),
        ("The answer is (C) because whales are large.", None, None),
        ("The answer is unclear.\n\n(E)", None, Some('E')),
        ("I think so.\nB.\n\n", None, Some('B')),
        ("I would say B", None, None),
        ("A", None, Some('A')),
        ("Z", None, None),
        ("", None, None),
    ] {
        assert_eq!((read(text, Extraction::Phrase), read(text, Extraction::Last)), (by_phrase, by_last), "{text}");
    }
    // A box decides, readable or not.
    assert_eq!(read(r"\boxed{A, B} The answer is A.", Extraction::Last), None);
    assert_eq!(read(r"\boxed{} The answer is A.", Extraction::Phrase), Some('A'));
}

#[test]
fn options_stand_below_the_question_with_their_letters() {
    assert_eq!(question_with_options("How long?\n", &options()[..3]), "How long?\n(A) 12 cm\n(B) 14 cm\n(C) Blue whale.");
    assert_eq!(question_with_options("How long?", &["a\n\nb".to_owned()]), "How long?\n(A) a b");
    assert_eq!((option_letter(25), option_letter(26), option_letter(300)), (Some('Z'), None, None));
    assert_eq!((gold_letter("B", &options()), gold_letter("(e)", &options())), (Some('B'), Some('E')));
    assert_eq!((gold_letter("F", &options()), gold_letter("12 cm", &options())), (None, None));
}

proptest! {
    #[test]
    fn every_text_is_read_and_a_choice_is_an_option(
        text in r"(answer is|Answer:|\\boxed\{|\\text\{|\}|[A-Ga-g(). $\\~é{\n]){0,24}",
        num_options in 0_usize..6,
    ) {
        let options: Vec<String> = options().into_iter().take(num_options).collect();
        for extraction in [Extraction::Box, Extraction::Phrase, Extraction::Last] {
            if let Ok(letter) = read_choice(&text, &options, extraction) {
                prop_assert!((0..num_options).any(|index| option_letter(index) == Some(letter)));
            }
        }
    }
}
