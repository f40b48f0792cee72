//! Tests of BLEU and clustering: golden values of NLTK and scikit-learn, the agreement of fast and slow path, and laws.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

const BLEU_GOLDEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden/bleu_golden_dev.jsonl"));
const CLUSTERS_GOLDEN: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden/bleu_clusters_dev.jsonl"));

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a golden row is JSON")).collect()
}

fn words(questions: &[&str]) -> Vec<Vec<u32>> {
    let tokenized: Vec<Vec<&str>> = questions.iter().map(|text| tokenize(text, BleuTokens::Whitespace)).collect();
    intern_tokens(&tokenized)
}

#[test]
fn bleu_agrees_with_nltk() {
    let rows = rows(BLEU_GOLDEN);
    assert_eq!(rows.len(), 180);
    for row in &rows {
        let texts = [&row["hypothesis"], &row["reference"]].map(|text| text.as_str().expect("texts are strings"));
        let pair = words(&texts);
        for (found, column) in [(sentence_bleu(&pair[0], &pair[1]), "bleu"), (sentence_bleu(&pair[1], &pair[0]), "bleu_swapped")]
        {
            let expected = row[column].as_f64().expect("scores are numbers");
            assert!((found - expected).abs() < 1e-12, "{} {column}: {found} against {expected}", row["id"]);
        }
    }
}

#[test]
fn clusters_agree_with_scikit_learn() {
    for row in rows(CLUSTERS_GOLDEN) {
        let questions: Vec<&str> =
            row["questions"].as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect();
        let as_options: Vec<Option<&str>> = questions.iter().copied().map(Some).collect();
        let found = repetition(&as_options, BleuTokens::Whitespace, 0.5, questions.len());
        let labels: Vec<u64> = found.cluster.iter().map(|&label| u64::from(label)).collect();
        assert_eq!(serde_json::json!(labels), row["canonical_labels"], "{}", row["id"]);
        for (share, expected) in found.share.iter().zip(row["shares"].as_array().expect("a list")) {
            assert!((share - expected.as_f64().expect("a share")).abs() < 1e-15);
        }

        let distances = bleu_distance_matrix(&words(&questions));
        if let Some(expected) = row["distances"].as_array() {
            let mut condensed = distances.iter();
            for hypothesis in 0..questions.len() {
                for reference in hypothesis + 1..questions.len() {
                    let expected = expected[hypothesis][reference].as_f64().expect("a distance");
                    let found = condensed.next().expect("a pair");
                    assert!((found - expected).abs() < 1e-12, "{}", row["id"]);
                }
            }
        }
        let mut condensed = distances.clone();
        let merges = kodama::linkage(&mut condensed, questions.len(), Method::Average);
        let expected_merges = row["merge_distances"].as_array().expect("a list");
        assert_eq!(merges.len(), expected_merges.len());
        for (step, expected) in merges.steps().iter().zip(expected_merges) {
            assert!((step.dissimilarity - expected.as_f64().expect("a distance")).abs() < 1e-9);
        }
    }
}

#[test]
fn a_merge_at_the_threshold_is_not_made() {
    let mut distances = [0.5];
    assert_eq!(average_linkage_clusters(&mut distances.clone(), 2, 0.5), [0, 1]);
    assert_eq!(average_linkage_clusters(&mut distances, 2, 0.500_001), [0, 0]);
}

#[test]
fn malformed_questions_join_no_cluster_and_count_in_the_batch() {
    let alike = Some("How many apples are left in the basket?");
    let found = repetition(&[None, alike, Some("Name a prime."), None, alike], BleuTokens::Whitespace, 0.5, 5);
    assert_eq!(found.cluster, [NO_CLUSTER, 0, 1, NO_CLUSTER, 0]);
    assert_eq!(found.share, [0.0, 0.4, 0.2, 0.0, 0.4]);
}

#[test]
fn characters_serve_questions_without_white_space() {
    assert_eq!(tokenize("1 +é", BleuTokens::Characters), ["1", "+", "é"]);
    let found = repetition(&[Some("12+34*5"), Some("12+34*6"), Some("9-8")], BleuTokens::Characters, 0.5, 3);
    assert_eq!(found.cluster, [0, 0, 1]);
}

#[test]
fn empty_and_single_batches_are_fine() {
    assert!(repetition(&[], BleuTokens::Whitespace, 0.5, 0).cluster.is_empty());
    assert_eq!(repetition(&[Some("")], BleuTokens::Whitespace, 0.5, 0).share, [1.0]);
    assert_eq!(repetition(&[None], BleuTokens::Whitespace, f64::NAN, 1).share, [0.0]);
    assert_eq!(repetition(&[Some(""), Some("")], BleuTokens::Characters, 0.5, 2).cluster, [0, 1]);
}

#[test]
fn a_whole_batch_is_scored_without_waiting() {
    // 2,048 questions of 60 words, words as unevenly common as in prose. NLTK on one thread takes minutes for this.
    let mut state = 1_u64;
    let mut draw = |bound: f64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (bound.powf((state >> 11) as f64 / (1_u64 << 53) as f64)) as u32
    };
    let questions: Vec<Vec<u32>> = (0..2_048).map(|_| (0..60).map(|_| draw(5_000.0)).collect()).collect();
    let start = std::time::Instant::now();
    let mut distances = bleu_distance_matrix(&questions);
    let labels = average_linkage_clusters(&mut distances, questions.len(), 0.5);
    // Generous: an unoptimised build on a busy machine passes, a return to pair-by-pair string counting does not.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    assert_eq!(labels.len(), 2_048);
}

proptest! {
    #[test]
    fn the_fast_path_equals_the_slow_one(questions in prop::collection::vec(prop::collection::vec(0_u32..4, 0..12), 0..9)) {
        let mut expected = Vec::new();
        for (row, hypothesis) in questions.iter().enumerate() {
            for reference in &questions[row + 1..] {
                expected.push(1.0 - sentence_bleu(hypothesis, reference));
            }
        }
        prop_assert_eq!(bleu_distance_matrix(&questions), expected);
    }

    #[test]
    fn any_text_is_clustered(questions in prop::collection::vec(prop::option::of(r"(\PC|\x00|\x1c){0,20}"), 0..8)) {
        let texts: Vec<Option<&str>> = questions.iter().map(Option::as_deref).collect();
        for tokens in [BleuTokens::Whitespace, BleuTokens::Characters] {
            let found = repetition(&texts, tokens, 0.5, texts.len());
            for (row, text) in texts.iter().enumerate() {
                prop_assert_eq!(text.is_none(), found.cluster[row] == NO_CLUSTER);
                prop_assert!((0.0..=1.0).contains(&found.share[row]));
            }
        }
    }
}
