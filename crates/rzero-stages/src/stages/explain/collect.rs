//! Everything that the tables of a run hold of one question.

use crate::context::project_root;
use crate::exit::StageFailure;
use rzero_algo::domain::true_answer;
use rzero_io::layout::RunLayout;
use rzero_io::set::StageOutput;
use rzero_model::tokenizer::Tokenizer;
use rzero_schema::ids::{ChallengeId, Place};
use rzero_schema::profile::Profile;
use rzero_schema::table::Table;
use rzero_schema::tables::{Challenge, CurriculumRow, DroppedRow, Label, LabelCheck, RewardRow, Rollout};
use rzero_schema::vocab::{Phase, Stage};
use serde::Serialize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Ids that are shown where several begin alike.
const SHOWN_IDS: usize = 10;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8192;

/// The life of one question.
#[derive(Debug, Serialize)]
pub(super) struct Life {
    pub(super) challenge_id: String,
    /// The manifest of the shard that wrote it.
    pub(super) written_by: String,
    /// What the Challenger was asked.
    pub(super) prompt: Option<String>,
    /// What it wrote.
    pub(super) completion: String,
    pub(super) finish_reason: String,
    pub(super) challenge_status: String,
    pub(super) question: Option<String>,
    pub(super) proposed_answer: Option<String>,
    /// The exact answer, where arithmetic has one; nothing of the run depends on it.
    pub(super) true_answer: Option<String>,
    pub(super) answers: Vec<Answer>,
    pub(super) label: Option<Vote>,
    pub(super) gate: Option<Gate>,
    pub(super) probe: Option<Probe>,
    /// What the Challenger got for it, where it was written in training.
    pub(super) challenger_reward: Option<ChallengerReward>,
    /// The Solver's steps that it was part of.
    pub(super) trained_in: Vec<TrainedIn>,
    /// What the Solvers of this and later iterations answer, most likely token by token; of iteration 0, the base model.
    pub(super) later_answers: Vec<LaterAnswer>,
}

/// One of the Solver's answers that voted.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) sample: u32,
    pub(super) completion: String,
    pub(super) finish_reason: String,
    pub(super) num_tokens: usize,
    /// What became of it in the vote.
    pub(super) status: Option<String>,
    /// The class that it voted for.
    pub(super) answer: Option<String>,
}

/// The vote.
#[derive(Debug, Serialize)]
pub(super) struct Vote {
    pub(super) pseudo_label: Option<String>,
    pub(super) vote_share: f64,
    pub(super) margin: f64,
    pub(super) vote_entropy: f64,
    pub(super) num_samples: u32,
    pub(super) num_parsed: u32,
    pub(super) num_truncated: u32,
    /// Answer classes with their votes, most first.
    pub(super) classes: Vec<(String, u32)>,
}

/// What the filter did.
#[derive(Debug, Serialize)]
pub(super) struct Gate {
    pub(super) is_kept: bool,
    /// The first gate that refused it.
    pub(super) drop_reason: Option<String>,
    pub(super) gate_version: u32,
    /// The band of vote shares that was kept.
    pub(super) band: Option<(f64, f64)>,
}

/// What the label probe said of the label.
#[derive(Debug, Serialize)]
pub(super) struct Probe {
    pub(super) truth_source: String,
    pub(super) truth: Option<String>,
    pub(super) verdict: String,
}

/// The Challenger's reward and what it follows from.
#[derive(Debug, Serialize)]
pub(super) struct ChallengerReward {
    pub(super) reward: f64,
    pub(super) advantage: f64,
    pub(super) uncertainty: Option<f64>,
    pub(super) repetition: Option<f64>,
    pub(super) cluster: Option<u32>,
}

/// A step of the Solver that trained on it.
#[derive(Debug, Serialize)]
pub(super) struct TrainedIn {
    pub(super) iteration: u32,
    pub(super) step: u32,
    pub(super) rollouts: Vec<Trained>,
}

/// One answer of a training step.
#[derive(Debug, Serialize)]
pub(super) struct Trained {
    pub(super) sample: u32,
    pub(super) completion: String,
    pub(super) status: String,
    pub(super) answer: Option<String>,
    pub(super) reward: f64,
    pub(super) advantage: f64,
}

/// What a Solver answers by now.
#[derive(Debug, Serialize)]
pub(super) struct LaterAnswer {
    pub(super) iteration: u32,
    pub(super) checkpoint: String,
    pub(super) completion: String,
    pub(super) status: String,
    pub(super) answer: Option<String>,
    /// Whether it is the pseudo-label of the iteration in which the question was written.
    pub(super) is_label: Option<bool>,
}

/// Where it is read from.
pub(super) struct Reader<'a> {
    pub(super) layout: &'a RunLayout,
    pub(super) profile: &'a Profile,
    pub(super) project_root: Option<&'a Path>,
}

impl Reader<'_> {
    /// The question that was typed: its id in any spelling, or the beginning of one.
    pub(super) fn find(&self, typed: &str) -> anyhow::Result<ChallengeId> {
        if let Ok(id) = typed.parse::<ChallengeId>()
            && let Some(output) = self.open(Stage::ChallengeGen, id.place)?
            && id.row < output.num_rows::<Challenge>()?
        {
            return Ok(id);
        }
        let mut found = Vec::new();
        for place in self.places()? {
            let Some(output) = self.open(Stage::ChallengeGen, place)? else { continue };
            let rows = 0..output.num_rows::<Challenge>()?;
            found.extend(
                rows.map(|row| place.challenge_id(row)).filter(|id| id.to_string().starts_with(typed)).take(SHOWN_IDS + 1),
            );
        }
        match found.as_slice() {
            [id] => Ok(*id),
            [] => Err(StageFailure::usage(format!("no question of this run has an id that begins with `{typed}`"))
                .hint("ids stand in the tables as challenge_id, such as 001/curriculum/00/00017; --random takes any")
                .into()),
            several => {
                let shown = several.iter().take(SHOWN_IDS).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let message = format!("several questions have an id that begins with `{typed}`: {shown}");
                Err(StageFailure::usage(message).hint("type more of it").into())
            }
        }
    }

    /// Any question that was kept.
    pub(super) fn any(&self) -> anyhow::Result<ChallengeId> {
        let mut kept = Vec::new();
        for iteration in self.layout.iterations()? {
            if let Some(output) = self.open(Stage::Filter, Place::new(iteration, Phase::Curriculum, 0))? {
                let rows = output.read::<CurriculumRow>()?;
                kept.extend(rows.into_iter().map(|row| row.challenge_id));
            }
        }
        let chance = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos() as usize);
        match kept.get(chance % kept.len().max(1)) {
            Some(id) => Ok(id.parse()?),
            None => {
                Err(StageFailure::input("no iteration of this run has kept a question yet").hint("run `just iterate 1`").into())
            }
        }
    }

    /// Where questions are written, in the order of the run.
    fn places(&self) -> anyhow::Result<Vec<Place>> {
        let of_iteration = |iteration: u32| {
            let steps = (1..=self.profile.challenger.steps).map(move |step| Place::new(iteration, Phase::Challenger, step));
            steps.chain([Place::new(iteration, Phase::Curriculum, 0)])
        };
        Ok(self.layout.iterations()?.into_iter().filter(|iteration| *iteration > 0).flat_map(of_iteration).collect())
    }

    /// A finished output; none where it has not finished.
    fn open(&self, stage: Stage, place: Place) -> anyhow::Result<Option<StageOutput>> {
        Ok(StageOutput::open_finished(self.layout, stage, place)?)
    }

    /// The rows of a stage's table that are of a question; none where the stage has not finished.
    fn rows<T: Table>(&self, stage: Stage, id: ChallengeId, is_of: impl Fn(&T) -> bool) -> anyhow::Result<Vec<T>> {
        match self.open(stage, id.place)? {
            // Tables of questions have their rows in order: only the part that can hold this one is read.
            Some(output) => rows_where(&output, Some(id.row), is_of),
            None => Ok(Vec::new()),
        }
    }

    /// All that is known of a question.
    pub(super) fn life(&self, id: ChallengeId) -> anyhow::Result<Life> {
        let (place, text) = (id.place, id.to_string());
        let rollout: Option<Rollout> = self.rows(Stage::ChallengeGen, id, |row: &Rollout| row.challenge_id == text)?.pop();
        let challenge: Option<Challenge> = self.rows(Stage::ChallengeGen, id, |row: &Challenge| row.challenge_id == text)?.pop();
        let (Some(rollout), Some(challenge)) = (rollout, challenge) else {
            let message = format!("question {text} is in no table of {}", self.layout.shown(self.layout.root()).display());
            return Err(StageFailure::input(message).hint("hold the run against itself: `just audit`").into());
        };
        let label = self.rows(Stage::VoteLabel, id, |row: &Label| row.challenge_id == text)?.pop();
        let answers: Vec<Rollout> = self.rows(Stage::SolveSample, id, |row: &Rollout| row.challenge_id == text)?;
        let evaluator = self.profile.domain.evaluator;
        Ok(Life {
            written_by: self.writer_of(Stage::ChallengeGen, id)?,
            prompt: self.prompt(id, &rollout)?,
            completion: rollout.completion,
            finish_reason: rollout.finish_reason,
            challenge_status: challenge.challenge_status,
            true_answer: challenge.question.as_deref().and_then(|question| true_answer(evaluator, question)),
            question: challenge.question,
            proposed_answer: challenge.proposed_answer,
            answers: answers.into_iter().map(|rollout| answer(rollout, label.as_ref())).collect(),
            gate: self.gate(id, &text)?,
            probe: self.rows(Stage::LabelProbe, id, |row: &LabelCheck| row.challenge_id == text)?.pop().map(|check| Probe {
                truth_source: check.truth_source,
                truth: check.truth,
                verdict: check.verdict,
            }),
            challenger_reward: self.challenger_reward(id, &text)?,
            trained_in: if place.phase == Phase::Curriculum { self.trained_in(place.iteration, &text)? } else { Vec::new() },
            label: label.map(vote),
            later_answers: Vec::new(),
            challenge_id: text,
        })
    }

    /// The manifest of the shard in which a question's row lies.
    fn writer_of(&self, stage: Stage, id: ChallengeId) -> anyhow::Result<String> {
        let Some(output) = self.open(stage, id.place)? else { return Ok(String::new()) };
        let mut end = 0;
        for manifest in output.manifests() {
            let rows = manifest.outputs.iter().filter(|record| record.table.as_deref() == Some(Challenge::NAME));
            end += rows.filter_map(|record| record.num_rows).sum::<u64>();
            if id.row < end {
                let shard = rzero_io::layout::Shard { index: manifest.shard_index, num: manifest.num_shards };
                return Ok(self.layout.shown(&self.layout.manifest(stage, id.place, shard)).display().to_string());
            }
        }
        Ok(String::new())
    }

    /// The prompt as text, by the tokenizer of the model that was asked; none where that is not there any more.
    fn prompt(&self, id: ChallengeId, rollout: &Rollout) -> anyhow::Result<Option<String>> {
        let Some(output) = self.open(Stage::ChallengeGen, id.place)? else { return Ok(None) };
        let files = output.manifests().iter().flat_map(|manifest| &manifest.inputs);
        let Some(file) = files.into_iter().find(|record| record.path.ends_with("/tokenizer.json")) else { return Ok(None) };
        let root = project_root(self.project_root).unwrap_or_default();
        let folders = [self.layout.absolute(&file.path), root.join(&file.path)];
        let read = folders.iter().filter_map(|path| Tokenizer::read(path.parent()?).ok()).next();
        Ok(read.map(|tokenizer| tokenizer.decode(&rollout.prompt_tokens).text))
    }

    fn gate(&self, id: ChallengeId, text: &str) -> anyhow::Result<Option<Gate>> {
        let band = self.profile.curriculum.bands.iter().rev().find(|band| band.from_iteration <= id.place.iteration);
        let band = band.map(|band| (band.low, band.high));
        if let Some(row) = self.rows(Stage::Filter, id, |row: &CurriculumRow| row.challenge_id == text)?.pop() {
            return Ok(Some(Gate { is_kept: true, drop_reason: None, gate_version: row.gate_version, band }));
        }
        let dropped = self.rows(Stage::Filter, id, |row: &DroppedRow| row.challenge_id == text)?.pop();
        Ok(dropped.map(|row| Gate { is_kept: false, drop_reason: Some(row.drop_reason), gate_version: row.gate_version, band }))
    }

    fn challenger_reward(&self, id: ChallengeId, text: &str) -> anyhow::Result<Option<ChallengerReward>> {
        if id.place.phase != Phase::Challenger {
            return Ok(None);
        }
        let row = self.rows(Stage::GrpoStep, id, |row: &RewardRow| row.challenge_id == text)?.pop();
        Ok(row.map(|row| ChallengerReward {
            reward: row.reward,
            advantage: row.advantage,
            uncertainty: row.uncertainty,
            repetition: row.repetition,
            cluster: row.cluster,
        }))
    }

    fn trained_in(&self, iteration: u32, text: &str) -> anyhow::Result<Vec<TrainedIn>> {
        let mut steps = Vec::new();
        // A question may be replayed in every iteration after its own.
        let is_replayed = self.profile.stability.num_replayed(self.profile.solver.num_questions) > 0;
        let last = self.places()?.iter().map(|place| place.iteration).max().filter(|_| is_replayed).unwrap_or(iteration);
        let steps_of = |iteration| (1..=self.profile.solver.steps).map(move |step| Place::new(iteration, Phase::Solver, step));
        for place in (iteration..=last).flat_map(steps_of) {
            let (Some(answers), Some(rewards)) = (self.open(Stage::SolveSample, place)?, self.open(Stage::GrpoStep, place)?)
            else {
                continue;
            };
            let rewards = rows_where(&rewards, None, |row: &RewardRow| row.challenge_id == text)?;
            if rewards.is_empty() {
                continue;
            }
            let answers = rows_where(&answers, None, |row: &Rollout| row.challenge_id == text)?;
            let completion =
                |sample| answers.iter().find(|row| row.sample == sample).map_or("", |row| &row.completion).to_owned();
            let rollouts = rewards.into_iter().map(|row| Trained {
                sample: row.sample,
                completion: completion(row.sample),
                status: row.status,
                answer: row.answer,
                reward: row.reward,
                advantage: row.advantage,
            });
            steps.push(TrainedIn { iteration: place.iteration, step: place.step, rollouts: rollouts.collect() });
        }
        Ok(steps)
    }
}

/// Rows of a table, of which only those parts are read that can hold row number `row`, if one is given.
fn rows_where<T: Table>(output: &StageOutput, row: Option<u64>, is_of: impl Fn(&T) -> bool) -> anyhow::Result<Vec<T>> {
    let columns: Vec<&'static str> = T::columns().iter().map(|column| column.name).collect();
    let may_hold =
        |piece: &rzero_io::scan::Piece<T>| row.is_none_or(|row| piece.range("row").is_none_or(|range| range.contains(&row)));
    let mut rows = Vec::new();
    for piece in output.scan_where::<T>(&columns, may_hold)? {
        for columns in piece.open(BATCH_ROWS)? {
            let batch = columns?.batch().clone();
            rows.extend(T::from_batch(&batch)?.into_iter().filter(&is_of));
        }
    }
    Ok(rows)
}

fn answer(rollout: Rollout, label: Option<&Label>) -> Answer {
    let at = rollout.sample as usize;
    let class = label.and_then(|label| label.class_answers.get(usize::try_from(*label.sample_classes.get(at)?).ok()?).cloned());
    Answer {
        sample: rollout.sample,
        completion: rollout.completion,
        finish_reason: rollout.finish_reason,
        num_tokens: rollout.completion_tokens.len(),
        status: label.and_then(|label| label.sample_statuses.get(at).cloned()),
        answer: class,
    }
}

fn vote(label: Label) -> Vote {
    Vote {
        pseudo_label: label.pseudo_label,
        vote_share: label.vote_share,
        margin: label.margin,
        vote_entropy: label.vote_entropy,
        num_samples: label.num_samples,
        num_parsed: label.num_parsed,
        num_truncated: label.num_truncated,
        classes: label.class_answers.into_iter().zip(label.class_counts).collect(),
    }
}
