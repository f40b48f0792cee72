//! What a stage sees of the profile. The rest is blank to it, so it cannot decide what the stage writes.
//!
//! The digest in a stage's footers and fingerprint is of what it sees, so two runs whose profiles differ in what a stage does not see have the same
//! output there, byte for byte, and one may take it from the other. A key that is blanked here and read by the stage after all is read blank in
//! every run: rows may then be nonsense, but never depend on what the digest leaves out. When in doubt a key is left to be seen: that costs nothing
//! but sharing.

use crate::ids::Place;
use crate::profile::{BandSettings, GrpoSettings, LoraSettings, Profile};
use crate::vocab::{AnswerForm, LabelSolver, Labeller, LossNormalization, Objective, Phase, SolverReward, Stage, StartFrom};

impl Profile {
    /// The profile with everything blank that a stage has no use for at a place.
    #[must_use]
    pub fn seen_by(&self, stage: Stage, place: Place) -> Self {
        let Place { iteration, phase, .. } = place;
        let trains = |role: Phase| phase == role && matches!(stage, Stage::GrpoStep | Stage::GrpoGradient);
        let writes_with_anchors = stage == Stage::ChallengeGen && self.stability.anchors_shown > 0;
        let sees_verifier = stage != Stage::Eval
            && (stage == Stage::Verify
                || phase == Phase::Verifier
                || self.is_judged(iteration, phase)
                || self.domain.answers == AnswerForm::Rubric);
        let votes = matches!(stage, Stage::VoteLabel | Stage::Filter | Stage::LabelProbe);
        let mut seen = self.clone();

        if !trains(Phase::Challenger) {
            seen.challenger.grpo = blank_optimiser();
        }
        if !trains(Phase::Solver) {
            seen.solver.grpo = blank_optimiser();
        }
        if !sees_verifier {
            (seen.roles, seen.verifier) = (2, None);
        }
        if !votes && !sees_verifier {
            seen.curriculum.labeller = Labeller::Majority;
        }
        if !matches!(stage, Stage::Filter | Stage::LabelProbe) {
            seen.curriculum.bands = vec![BandSettings { from_iteration: 1, low: 0.0, high: 1.0 }];
            seen.curriculum.min_margin = 0.0;
        }
        if phase != Phase::Solver && !sees_verifier {
            (seen.solver.objective, seen.solver.reward) = (Objective::Grpo, SolverReward::Label);
        }
        if iteration <= 1 {
            // Everyone starts from the base, and there is nothing earlier.
            (seen.challenger.start_from, seen.solver.start_from) = (StartFrom::Base, StartFrom::Base);
            seen.stability.replay_share = 0.0;
        }
        if phase != Phase::Solver {
            seen.stability.replay_share = 0.0;
        }
        if phase != Phase::Solver && !writes_with_anchors {
            (seen.stability.anchor_share, seen.domain.anchors) = (0.0, String::new());
        }
        if stage != Stage::ChallengeGen {
            seen.stability.anchors_shown = 0;
        }
        if !trains(Phase::Solver) {
            seen.stability.weigh_by_votes = false;
        }
        if !trains(Phase::Challenger) && stage != Stage::Remember {
            seen.stability.memory_weight = 0.0;
        }
        if phase != Phase::Curriculum {
            seen.stability.label_solver = LabelSolver::Newest;
        }
        if phase == Phase::Eval && iteration == 0 {
            // The base model, before anybody was trained.
            (seen.challenger.steps, seen.challenger.repetition_weight) = (0, 0.0);
        }
        seen
    }
}

/// An optimiser's section where nothing is trained.
fn blank_optimiser() -> GrpoSettings {
    GrpoSettings {
        learning_rate: 0.0,
        learning_rate_decay: 1.0,
        adam_beta1: 0.0,
        adam_beta2: 0.0,
        adam_epsilon: 0.0,
        weight_decay: 0.0,
        max_gradient_norm: 0.0,
        kl_coef: 0.0,
        kl_clamp: 0.0,
        clip_low: 0.0,
        clip_high: 0.0,
        clip_dual: 0.0,
        loss_normalization: LossNormalization::Token,
        mask_truncated: false,
        update_batch: 0,
        micro_batch_tokens: 0,
        gradient_parts: 0,
        recompute_activations: false,
        lora: LoraSettings { rank: 0, alpha: 0.0, targets: Vec::new() },
        weight_ema: 0.0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    fn profile(overrides: &[&str]) -> Profile {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let domain = include_str!("../../../pipelines/domains/arithmetic/domain.toml");
        let text = include_str!("../../../pipelines/profiles/smoke.toml");
        Profile::from_toml(text, &overrides, |_| Ok(domain.to_owned())).unwrap()
    }

    /// The places of two iterations, as `iteration/phase/stage`, at which a change of the profile is seen.
    fn seen(overrides: &[&str]) -> Vec<String> {
        let stages = [
            (Phase::Challenger, &[Stage::ChallengeGen, Stage::SolveSample, Stage::VoteLabel, Stage::GrpoStep][..]),
            (
                Phase::Curriculum,
                &[Stage::ChallengeGen, Stage::SolveSample, Stage::VoteLabel, Stage::Filter, Stage::Remember, Stage::LabelProbe],
            ),
            (Phase::Verifier, &[Stage::Verify, Stage::GrpoStep]),
            (Phase::Solver, &[Stage::SolveSample, Stage::GrpoStep]),
            (Phase::Eval, &[Stage::Eval]),
        ];
        let (plain, changed) = (profile(&[]), profile(overrides));
        let mut found = Vec::new();
        for iteration in 0..=2 {
            for (phase, stages) in &stages {
                for stage in stages.iter().filter(|_| iteration > 0 || *phase == Phase::Eval) {
                    let place = Place::new(iteration, *phase, 1);
                    if plain.seen_by(*stage, place).digest() != changed.seen_by(*stage, place).digest() {
                        found.push(format!("{iteration}/{phase}/{stage}"));
                    }
                }
            }
        }
        found
    }

    #[test]
    fn a_key_is_seen_where_it_decides() {
        let of_gates = ["1/curriculum/filter", "1/curriculum/label-probe", "2/curriculum/filter", "2/curriculum/label-probe"];
        assert_eq!(seen(&["curriculum.min_margin=0.3"]), of_gates);
        assert_eq!(seen(&["solver.grpo.learning_rate=1"]), ["1/solver/grpo-step", "2/solver/grpo-step"]);
        assert_eq!(seen(&["challenger.grpo.kl_coef=1"]), ["1/challenger/grpo-step", "2/challenger/grpo-step"]);
        assert_eq!(seen(&["stability.weigh_by_votes=true"]), ["1/solver/grpo-step", "2/solver/grpo-step"]);
        assert_eq!(seen(&["stability.replay_share=0.5"]), ["2/solver/solve-sample", "2/solver/grpo-step"]);
        assert_eq!(
            seen(&["verifier.steps=9"]),
            ["1/verifier/verify", "1/verifier/grpo-step", "2/verifier/verify", "2/verifier/grpo-step"]
        );
        // Who starts from where decides nothing before there is something to start from.
        assert!(seen(&["challenger.start_from=previous"]).iter().all(|place| place.starts_with("2/")));
        // Whom a key's meaning reaches is told once it has one.
        assert!(seen(&["roles=3", "verifier.min_score=0.4"]).contains(&"2/curriculum/vote-label".to_owned()));
        assert!(!seen(&["roles=3", "verifier.min_score=0.4"]).contains(&"1/curriculum/vote-label".to_owned()));
    }

    #[test]
    fn what_everyone_reads_is_seen_by_all() {
        let all = seen(&["seed=99"]);
        assert_eq!(all.len(), 1 + 2 * 15);
        assert_eq!(seen(&["model.path=elsewhere"]), all);
        assert_eq!(seen(&["domain.max_answer_chars=3"]), all);
        assert!(seen(&["judge.model=another"]).is_empty());
    }

    #[test]
    fn what_is_seen_is_a_profile_and_seen_again_the_same() {
        let whole = profile(&["roles=3"]);
        for stage in [Stage::ChallengeGen, Stage::Eval, Stage::GrpoStep] {
            let place = Place::new(1, Phase::Solver, 1);
            let seen = whole.seen_by(stage, place);
            assert_eq!(seen.seen_by(stage, place), seen);
        }
    }
}
