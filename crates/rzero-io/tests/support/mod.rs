//! Made-up rows of every table, manifests and small runs for the tests of this crate.

#![allow(dead_code, clippy::unwrap_used, reason = "a test stops where it cannot go on, and each test file uses its own part")]

use rzero_io::layout::{RunLayout, Shard};
use rzero_io::manifest::{fingerprint, write_manifest};
use rzero_io::writer::{FooterMetadata, TableWriter, WrittenTable};
use rzero_schema::ids::Place;
use rzero_schema::manifest::{Build, FileRecord, MANIFEST_VERSION, Manifest};
use rzero_schema::table::Table;
use rzero_schema::tables::*;
use rzero_schema::vocab::{Phase, Stage};
use std::path::Path;

/// SplitMix64: enough chance for made-up rows.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// A made-up value of any column type.
pub(crate) trait MadeUp {
    fn make(chance: &mut Chance) -> Self;
}

impl MadeUp for u32 {
    fn make(chance: &mut Chance) -> Self {
        chance.next() as Self
    }
}
impl MadeUp for u64 {
    fn make(chance: &mut Chance) -> Self {
        chance.next()
    }
}
impl MadeUp for i32 {
    fn make(chance: &mut Chance) -> Self {
        chance.next() as Self
    }
}
impl MadeUp for bool {
    fn make(chance: &mut Chance) -> Self {
        chance.next().is_multiple_of(2)
    }
}
impl MadeUp for f32 {
    fn make(chance: &mut Chance) -> Self {
        let bits = Self::from_bits(chance.next() as u32);
        if bits.is_nan() { -0.0 } else { bits }
    }
}
impl MadeUp for f64 {
    fn make(chance: &mut Chance) -> Self {
        let bits = Self::from_bits(chance.next());
        if bits.is_nan() { Self::INFINITY } else { bits }
    }
}
impl MadeUp for String {
    fn make(chance: &mut Chance) -> Self {
        const LETTERS: [char; 8] = ['a', '0', '\\', '"', '\n', 'é', '🦀', '\u{0}'];
        (0..chance.next() % 9).map(|_| LETTERS[(chance.next() % 8) as usize]).collect()
    }
}
impl<T: MadeUp> MadeUp for Option<T> {
    fn make(chance: &mut Chance) -> Self {
        bool::make(chance).then(|| T::make(chance))
    }
}
impl<T: MadeUp> MadeUp for Vec<T> {
    fn make(chance: &mut Chance) -> Self {
        (0..chance.next() % 5).map(|_| T::make(chance)).collect()
    }
}

macro_rules! made_up_rows {
    ($($table:ident { $($column:ident),+ $(,)? })+) => {
        $(impl MadeUp for $table {
            fn make(chance: &mut Chance) -> Self {
                Self { $($column: MadeUp::make(chance),)+ }
            }
        })+

        /// Names of all tables that have made-up rows.
        pub(crate) const MADE_UP_TABLES: &[&str] = &[$($table::NAME,)+];
    };
}

made_up_rows! {
    Rollout {
        challenge_id, row, sample, role, prompt_tokens, completion_tokens, policy_logprobs, sampler_logprobs, entropy,
        self_certainty, finish_reason, completion, is_valid_utf8,
    }
    Challenge { challenge_id, row, challenge_status, question, proposed_answer }
    MemoryRow { challenge_id, question, cluster, is_leader, similarity }
    Label {
        challenge_id, row, question, pseudo_label, vote_share, margin, vote_entropy, num_samples, num_parsed, num_truncated,
        class_answers, class_counts, class_weights, sample_statuses, sample_classes, is_agreed, score,
    }
    JudgedAnswer {
        verdict_id, row, challenge_id, sample, equal_samples, kind, response, other, target, num_verdicts, scores, score, agreement,
        rubric,
    }
    CurriculumRow { challenge_id, row, question, pseudo_label, vote_share, margin, gate_version }
    DroppedRow {
        challenge_id, row, question, drop_reason, challenge_status, pseudo_label, vote_share, margin, gate_version,
    }
    LabelCheck { challenge_id, row, question, pseudo_label, vote_share, truth_source, truth, verdict, judge_reply }
    RewardRow {
        challenge_id, row, sample, role, group, reward, advantage, uncertainty, repetition, memory, cluster, vote_share, answer, pseudo_label,
        verdict, status,
    }
    GradientSum {
        update, part, num_parts, first_micro_batch, num_micro_batches, num_tokens, loss, surrogate_loss, kl_reference, kl_old, entropy,
        num_clipped_low, num_clipped_high, logprob_difference, logprob_difference_max,
    }
    TrainMetrics {
        iteration, phase, step, num_rollouts, num_completion_tokens, reward_mean, reward_std, uncertainty_mean, repetition_mean,
        format_mean, num_groups, zero_variance_share, loss, surrogate_loss, kl_reference, kl_old, entropy, clip_low_share,
        clip_high_share, gradient_norm, learning_rate, completion_length_mean, completion_length_min, completion_length_max,
        truncated_share, sampler_trainer_logprob_max, sampler_trainer_logprob_mean,
    }
    StepTiming {
        iteration, phase, step, reward_seconds, reference_seconds, gradient_seconds, optimizer_seconds, write_seconds,
        tokens_per_second,
    }
    PretrainMetrics { step, loss, learning_rate, gradient_norm, num_tokens }
    EvalItem { item_id, row, benchmark, question, options, answer, subject, level, source, license, revision, digest }
    EvalResult {
        item_id, row, benchmark, subject, level, eval_style, eval_mode, sample, completion, num_tokens, finish_reason, answer_status,
        answer, gold, verdict, grade_reason, is_correct, is_worked,
    }
    Judgement {
        item_id, row, benchmark, eval_style, eval_mode, sample, gold, answer, verdict, judge_verdict, judge_reply, judge_model,
    }
}

/// Made-up rows of a table.
pub(crate) fn rows<T: MadeUp>(num_rows: usize, seed: u64) -> Vec<T> {
    let mut chance = Chance(seed);
    (0..num_rows).map(|_| T::make(&mut chance)).collect()
}

/// The place where the tests' runs lie.
pub(crate) const PLACE: Place = Place::new(1, Phase::Curriculum, 0);

/// A footer for stray files.
pub(crate) fn footer() -> FooterMetadata {
    FooterMetadata { stage: Stage::VoteLabel, place: PLACE, shard: Shard::WHOLE, seed: 7, profile_digest: "abc".to_owned() }
}

/// Writes a table file.
pub(crate) fn write<T: Table>(path: &Path, rows: &[T]) -> WrittenTable {
    let mut writer = TableWriter::create(path, &footer()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap()
}

/// Writes one shard of vote-label's output and its manifest, after `change` had its way with the manifest.
pub(crate) fn write_shard(layout: &RunLayout, shard: Shard, rows: &[Label], change: impl FnOnce(&mut Manifest)) {
    let written = write(&layout.part(Stage::VoteLabel, PLACE, Label::NAME, shard), rows);
    let mut manifest = Manifest {
        manifest_version: MANIFEST_VERSION,
        stage: "vote-label".to_owned(),
        iteration: PLACE.iteration,
        phase: PLACE.phase.to_string(),
        step: PLACE.step,
        update: PLACE.update,
        shard_index: shard.index,
        num_shards: shard.num,
        fingerprint: String::new(),
        build: Build { version: "0".to_owned(), commit: "unknown".to_owned(), is_dirty: false },
        argv: Vec::new(),
        profile_digest: "abc".to_owned(),
        overrides: Vec::new(),
        profile: None,
        seed: 7,
        digests: [("prompt".to_owned(), "p".to_owned())].into(),
        inputs: Vec::new(),
        derived: Vec::new(),
        reused_from: None,
        outputs: vec![FileRecord {
            path: layout.relative(&written.path).unwrap(),
            digest: written.digest,
            num_bytes: written.num_bytes,
            table: Some(Label::NAME.to_owned()),
            table_version: Some(Label::VERSION),
            num_rows: Some(written.num_rows),
        }],
        counts: [("parsed".to_owned(), 3)].into(),
        metrics: [("vote_share_mean".to_owned(), 0.1 + 0.2)].into(),
        device: "cpu".to_owned(),
        threads: 1,
        started_at: "2026-01-01T00:00:00Z".to_owned(),
        finished_at: "2026-01-01T00:00:01Z".to_owned(),
        seconds: 1.0,
    };
    change(&mut manifest);
    manifest.fingerprint = fingerprint(&manifest);
    write_manifest(layout, &layout.manifest(Stage::VoteLabel, PLACE, shard), &manifest).unwrap();
}
