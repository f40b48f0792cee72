//! From a run directory to everything the summary shows. What has not finished is named, what is broken is an error.

use super::benchmarks::{Line, lines};
use super::judge::{self, Judged};
use super::scores::{LabelAccuracy, is_true};
use crate::judged::figures;
use crate::run_record::{RunRecord, no_run};
use crate::scores::{Bootstrap, Evaluation, Figure, Measure};
use rzero_io::error::IoError;
use rzero_io::layout::{RunLayout, shard_of_manifest};
use rzero_io::manifest::read_manifest;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::manifest::Manifest;
use rzero_schema::profile::{Profile, is_of_experiment};
use rzero_schema::tables::{CurriculumRow, DroppedRow, EvalResult, JudgedAnswer, LabelCheck, TrainMetrics};
use rzero_schema::vocab::{AnswerKind, ChallengeStatus, DropReason, EvalStyle, Phase, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A run as far as it has come.
#[derive(Debug)]
pub(in crate::stages) struct RunSummary {
    pub(in crate::stages) run: PathBuf,
    pub(in crate::stages) record: RunRecord,
    /// Overrides that were typed, of what makes the experiment.
    pub(in crate::stages) overrides: Vec<String>,
    pub(in crate::stages) iterations: Vec<IterationSummary>,
}

/// One iteration as far as it has come.
#[derive(Debug)]
pub(in crate::stages) struct IterationSummary {
    pub(in crate::stages) iteration: u32,
    pub(in crate::stages) scores: Option<Scores>,
    pub(in crate::stages) judged: Option<Judged>,
    pub(in crate::stages) curriculum: Option<Curriculum>,
    pub(in crate::stages) challenger: Option<Training>,
    pub(in crate::stages) solver: Option<Training>,
    pub(in crate::stages) verifier: Option<Training>,
    pub(in crate::stages) probes: Option<Probes>,
    pub(in crate::stages) seconds_by_stage: BTreeMap<String, f64>,
    /// Finished outputs that are expected and not there.
    pub(in crate::stages) missing: Vec<String>,
}

/// Held-out accuracy and its gains. Arrays are by [`Measure::MAIN`].
#[derive(Debug)]
pub(in crate::stages) struct Scores {
    pub(in crate::stages) evaluation: Evaluation,
    pub(in crate::stages) accuracy: [Figure; 3],
    /// Over the base model as it is.
    pub(in crate::stages) gain: [Option<Figure>; 3],
    /// Over the base model made to work in steps.
    pub(in crate::stages) gain_over_worked: [Option<Figure>; 3],
    /// The checkpoint itself made to work in steps, where that was measured.
    pub(in crate::stages) worked: Option<(Evaluation, [Figure; 3])>,
    /// Each pass@j.
    pub(in crate::stages) passes: Vec<(Measure, Figure)>,
    /// Each benchmark and each average, where there is more than one benchmark.
    pub(in crate::stages) benchmarks: Vec<Line>,
}

/// What the filter made of the candidates.
#[derive(Debug)]
pub(in crate::stages) struct Curriculum {
    pub(in crate::stages) num_kept: u64,
    pub(in crate::stages) num_dropped: u64,
    /// Dropped rows by reason, in the order of the gates.
    pub(in crate::stages) drops: Vec<(String, u64)>,
    /// Malformed completions by what is wrong with them.
    pub(in crate::stages) malformed: Vec<(String, u64)>,
    /// What the label probe found; none where it has not run.
    pub(in crate::stages) labels: Option<LabelAccuracy>,
    /// What it found of verdicts and votes on the questions that votes alone would keep, by the names of its figures; none where nobody judged.
    pub(in crate::stages) voted: Option<BTreeMap<String, f64>>,
    pub(in crate::stages) examples: Vec<Example>,
}

/// A kept question.
#[derive(Debug)]
pub(in crate::stages) struct Example {
    pub(in crate::stages) question: String,
    pub(in crate::stages) pseudo_label: String,
    pub(in crate::stages) vote_share: f64,
    pub(in crate::stages) is_true: Option<bool>,
}

/// The steps of a role's training.
#[derive(Debug)]
pub(in crate::stages) struct Training {
    pub(in crate::stages) num_steps: u32,
    pub(in crate::stages) reward_first: f64,
    pub(in crate::stages) reward_last: f64,
    /// Divergence from the reference in the last step, nats a token.
    pub(in crate::stages) kl_last: f64,
    /// Share of well-formed questions, or of answers that could be read, in the last step.
    pub(in crate::stages) format_last: f64,
    /// Every step that has finished.
    pub(in crate::stages) steps: Vec<TrainMetrics>,
}

/// What the Verifier says of the fixed probes, which are the same in every iteration.
#[derive(Debug)]
pub(in crate::stages) struct Probes {
    pub(in crate::stages) num_judged: usize,
    /// By name: `accuracy`, `score_of_right`, ...
    pub(in crate::stages) figures: BTreeMap<&'static str, f64>,
    /// Answers as they were given, of which the Verifier thinks most, and least.
    pub(in crate::stages) best: Vec<JudgedAnswer>,
    pub(in crate::stages) worst: Vec<JudgedAnswer>,
}

/// Reads a run, which goes by the name `run`; of its held-out problems only those whose subject, with its benchmark before it or without,
/// begins with one of `subjects`, if there are any.
pub(in crate::stages) fn read_run(run: &Path, layout: &RunLayout, subjects: &[String]) -> anyhow::Result<RunSummary> {
    layout.refresh_all_manifests()?;
    let Some(record) = RunRecord::read(layout)? else {
        return Err(no_run(run).into());
    };
    let mut overrides = BTreeSet::new();
    let mut iterations: Vec<IterationSummary> = Vec::new();
    let (mut base, mut worked_base) = (None, None);
    for iteration in layout.iterations()? {
        let reader = IterationReader { layout, profile: &record.profile, subjects, iteration };
        let summary = reader.read(base.as_ref(), worked_base.as_ref(), &mut overrides)?;
        if let (0, Some(scores)) = (iteration, &summary.scores) {
            base = Some(scores.evaluation.clone());
            worked_base = scores.worked.as_ref().map(|(evaluation, _)| evaluation.clone());
        }
        iterations.push(summary);
    }
    Ok(RunSummary { run: run.to_owned(), record, overrides: overrides.into_iter().collect(), iterations })
}

/// Whether the subject of a row, with its benchmark before it or without, begins with one of `subjects`, if there are any.
pub(in crate::stages) fn is_of(row: &EvalResult, subjects: &[String]) -> bool {
    let names = [format!("{}/{}", row.benchmark, row.subject), row.subject.clone()];
    subjects.is_empty() || subjects.iter().any(|subject| names.iter().any(|name| name.starts_with(subject.as_str())))
}

struct IterationReader<'a> {
    layout: &'a RunLayout,
    profile: &'a Profile,
    subjects: &'a [String],
    iteration: u32,
}

impl IterationReader<'_> {
    fn read(
        &self,
        base: Option<&Evaluation>,
        worked_base: Option<&Evaluation>,
        overrides: &mut BTreeSet<String>,
    ) -> anyhow::Result<IterationSummary> {
        let mut missing = Vec::new();
        let results = self.open(Stage::Eval, Phase::Eval, 0, &mut missing)?;
        let scores = results.map(|output| self.scores(&output, base, worked_base)).transpose()?.flatten();
        let judged = judge::read(self.layout, self.iteration, self.subjects, self.draws())?;
        let (mut curriculum, mut challenger, mut solver, mut verifier) = (None, None, None, None);
        // A Solver that trains on anchors alone has neither Challenger nor curriculum.
        if self.iteration > 0 && self.profile.stability.is_labelled() {
            solver = self.training(Phase::Solver, self.profile.solver.steps, &mut missing)?;
        } else if self.iteration > 0 {
            let filter = self.open(Stage::Filter, Phase::Curriculum, 0, &mut missing)?;
            // Where the profile asks for no probe, one that was made by hand counts as well.
            let mut unasked = Vec::new();
            let noted = if self.profile.probe.sample_size > 0 { &mut missing } else { &mut unasked };
            let probe = self.open(Stage::LabelProbe, Phase::Curriculum, 0, noted)?;
            curriculum = filter.map(|output| read_curriculum(&output, probe.as_ref())).transpose()?;
            challenger = self.training(Phase::Challenger, self.profile.challenger.steps, &mut missing)?;
            if let Some(settings) = self.profile.verifier.as_ref().filter(|_| self.profile.has_verifier()) {
                verifier = self.training(Phase::Verifier, settings.steps, &mut missing)?;
            }
            solver = self.training(Phase::Solver, self.profile.solver.steps, &mut missing)?;
        }
        let is_probed = self.profile.is_judged(self.iteration, Phase::Eval);
        let probes = if is_probed {
            self.open(Stage::Verify, Phase::Eval, 0, &mut missing)?.map(|output| probes(&output)).transpose()?
        } else {
            None
        };
        let mut seconds_by_stage: BTreeMap<String, f64> = BTreeMap::new();
        let folder = self.layout.root().join(format!("iter-{:03}", self.iteration));
        for manifest in manifests_below(&folder)? {
            *seconds_by_stage.entry(manifest.stage).or_default() += manifest.seconds;
            overrides.extend(manifest.overrides.into_iter().filter(|setting| is_of_experiment(setting)));
        }
        Ok(IterationSummary {
            iteration: self.iteration,
            scores,
            judged,
            curriculum,
            challenger,
            solver,
            verifier,
            probes,
            seconds_by_stage,
            missing,
        })
    }

    /// A finished output; none, and noted as missing, where it has not finished.
    fn open(&self, stage: Stage, phase: Phase, step: u32, missing: &mut Vec<String>) -> anyhow::Result<Option<StageOutput>> {
        let output = StageOutput::open_finished(self.layout, stage, Place::new(self.iteration, phase, step))?;
        if output.is_none() {
            missing.push(if step > 0 { format!("{phase} step {step}") } else { stage.to_string() });
        }
        Ok(output)
    }

    fn scores(
        &self,
        output: &StageOutput,
        base: Option<&Evaluation>,
        worked_base: Option<&Evaluation>,
    ) -> anyhow::Result<Option<Scores>> {
        let mut rows = output.read::<EvalResult>()?;
        rows.retain(|row| is_of(row, self.subjects));
        let Some(evaluation) = Evaluation::of(&rows, EvalStyle::Free)? else { return Ok(None) };
        let worked = Evaluation::of(&rows, EvalStyle::Worked)?;
        let draws = self.draws();
        // The base model is compared with itself, so that every iteration has the same figures.
        let base = if self.iteration == 0 { Some(&evaluation) } else { base };
        let worked_base = if self.iteration == 0 { worked.as_ref() } else { worked_base };
        let gain = |before: Option<&Evaluation>, measure| before.and_then(|before| evaluation.gain_over(before, measure, draws));
        Ok(Some(Scores {
            accuracy: Measure::MAIN.map(|measure| evaluation.accuracy(measure, draws)),
            gain: Measure::MAIN.map(|measure| gain(base, measure)),
            gain_over_worked: Measure::MAIN.map(|measure| gain(worked_base, measure)),
            worked: worked.map(|worked| {
                let accuracy = Measure::MAIN.map(|measure| worked.accuracy(measure, draws));
                (worked, accuracy)
            }),
            passes: Measure::passes(evaluation.num_samples)
                .map(|measure| (measure, evaluation.accuracy(measure, draws)))
                .collect(),
            benchmarks: lines(&evaluation, base, &self.profile.eval.groups, draws),
            evaluation,
        }))
    }

    fn draws(&self) -> Bootstrap {
        Bootstrap { resamples: self.profile.eval.bootstrap_resamples, seed: self.profile.seed }
    }

    fn training(&self, phase: Phase, num_steps: u32, missing: &mut Vec<String>) -> anyhow::Result<Option<Training>> {
        let mut steps: Vec<TrainMetrics> = Vec::new();
        for step in 1..=num_steps {
            let Some(output) = self.open(Stage::GrpoStep, phase, step, missing)? else { break };
            steps.append(&mut output.read::<TrainMetrics>()?);
        }
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return Ok(None) };
        Ok(Some(Training {
            num_steps: last.step,
            reward_first: first.reward_mean,
            reward_last: last.reward_mean,
            kl_last: last.kl_reference,
            format_last: 100.0 * last.format_mean,
            steps,
        }))
    }
}

const NUM_EXAMPLES: usize = 3;

/// Figures of the label probe where verdicts decide what is kept.
pub(in crate::stages) const VOTED: [&str; 4] = ["num_voted", "voted_label_share", "verdict_accuracy", "vote_accuracy"];

fn probes(output: &StageOutput) -> anyhow::Result<Probes> {
    let mut judged = output.read::<JudgedAnswer>()?;
    let (num_judged, figures) = (judged.len(), figures(&judged).into_iter().collect());
    judged.retain(|row| row.kind == AnswerKind::Answer.as_str() && row.score.is_some());
    // By score, then by row: the same choice every time.
    judged.sort_by(|one, other| other.score.unwrap_or(0.0).total_cmp(&one.score.unwrap_or(0.0)).then(one.row.cmp(&other.row)));
    let worst = judged.iter().rev().take(NUM_EXAMPLES).cloned().collect();
    judged.truncate(NUM_EXAMPLES);
    Ok(Probes { num_judged, figures, best: judged, worst })
}

fn read_curriculum(output: &StageOutput, probe: Option<&StageOutput>) -> anyhow::Result<Curriculum> {
    let kept = output.read::<CurriculumRow>()?;
    let dropped = output.read::<DroppedRow>()?;
    let checks = probe.map(StageOutput::read::<LabelCheck>).transpose()?;
    let verdict_on = |id: &str| checks.iter().flatten().find(|check| check.challenge_id == id).and_then(is_true);
    let count = |is_it: &dyn Fn(&DroppedRow) -> bool| dropped.iter().filter(|row| is_it(row)).count() as u64;
    let drops = DropReason::ALL.iter().map(|reason| (reason.to_string(), count(&|row| row.drop_reason == reason.as_str())));
    let malformed = ChallengeStatus::ALL
        .iter()
        .filter(|status| **status != ChallengeStatus::Ok)
        .map(|status| (status.to_string(), count(&|row| row.challenge_status == status.as_str())));
    // From the beginning, the middle and the end, so that the choice is not ours.
    let shown = if kept.len() <= NUM_EXAMPLES { (0..kept.len()).collect() } else { vec![0, kept.len() / 2, kept.len() - 1] };
    let example = |row: &CurriculumRow| Example {
        question: row.question.clone(),
        pseudo_label: row.pseudo_label.clone(),
        vote_share: 100.0 * row.vote_share,
        is_true: verdict_on(&row.challenge_id),
    };
    let figures = probe.and_then(|output| output.manifests().first()).map(|manifest| &manifest.metrics);
    Ok(Curriculum {
        num_kept: kept.len() as u64,
        num_dropped: dropped.len() as u64,
        drops: drops.collect(),
        malformed: malformed.collect(),
        labels: checks.as_deref().map(LabelAccuracy::of),
        voted: figures
            .filter(|figures| figures.contains_key(VOTED[0]))
            .map(|figures| VOTED.iter().filter_map(|name| Some(((*name).to_owned(), *figures.get(*name)?))).collect()),
        examples: shown.into_iter().map(|row| example(&kept[row])).collect(),
    })
}

/// Every manifest under a folder, in the order of their paths, so that sums of floating-point numbers do not depend on the file system.
pub(in crate::stages) fn manifests_below(folder: &Path) -> anyhow::Result<Vec<Manifest>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IoError::file("read", folder))? {
        paths.push(entry.map_err(IoError::file("read", folder))?.path());
    }
    paths.sort();
    let mut manifests = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            manifests.append(&mut manifests_below(&path)?);
        } else if shard_of_manifest(&name).is_some() {
            manifests.push(read_manifest(&path)?);
        }
    }
    Ok(manifests)
}
