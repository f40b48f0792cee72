//! `label-probe`: how many of the pseudo-labels are true, on a sample of the curriculum, and whether the loop may go on.
//!
//! Reads the `curriculum` of filter; writes `label_probe`, one row a question that was drawn, and the share with its Wilson
//! interval into the manifest. Who says what is true stands in the profile: the exact evaluator, a judge model that solves the
//! question without seeing the label, or people in a form. What cannot be checked stays in the table as unknown, is counted with
//! its reason, and enters no share.
//!
//! Where the lower end of the interval lies under the profile's floor, the stage ends with exit code 5, after its output is written
//! and whenever it is asked again. The floor decides no row, so a lower one lets the same output pass. That is all that a run
//! learns of the truth: it never labels, drops or weighs a question.

mod form;

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::console::{print_note, print_product};
use crate::context::StageContext;
#[cfg(feature = "fetch")]
use crate::endpoint::{Endpoint, Reply};
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::questions::BATCH_ROWS;
use rzero_algo::curriculum::{Gate, gate};
use rzero_algo::domain::true_answer;
use rzero_algo::equivalence::{GradeOptions, grade};
use rzero_algo::score::wilson;
use rzero_io::manifest::read_manifest;
use rzero_io::set::StageOutput;
use rzero_schema::table::Table;
use rzero_schema::tables::{CurriculumRow, JudgedAnswer, Label, LabelCheck};
use rzero_schema::vocab::{Phase, Stage, TruthSource, Verdict};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// Check a sample of the pseudo-labels: curriculum to the share that is true.
#[derive(Debug, clap::Parser)]
#[command(name = "label-probe", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,

    /// Write the form that people fill where probe.truth is human, and do nothing else
    #[arg(long, value_name = "FILE.csv", conflicts_with = "truths")]
    export: Option<PathBuf>,

    /// The filled form; left out, truths.csv in the folder of the curriculum phase
    #[arg(long, value_name = "FILE.csv")]
    truths: Option<PathBuf>,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when people have filled nothing yet (exit 3), a judge cannot be asked, or the labels are too often false (5).
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = StageContext::new(Stage::LabelProbe, &args.common, &[Phase::Curriculum])?;
    context.require_unsharded()?;
    let settings = &context.profile.probe;
    if settings.sample_size == 0 {
        return Err(StageFailure::usage("probe.sample_size is 0: no label is checked")
            .hint("set it to the number of questions")
            .into());
    }
    let mut inputs = StageInputs::new(&context)
        .with_stage(Stage::Filter)
        .with_value("probe.sample_size", settings.sample_size)
        .with_value("probe.truth", settings.truth);
    if context.profile.is_judged(context.place.iteration, Phase::Curriculum) {
        inputs = inputs.with_stage(Stage::VoteLabel).with_stage(Stage::Verify);
    }
    match settings.truth {
        TruthSource::Exact => {}
        TruthSource::Judge => {
            let judge = &context.profile.judge;
            inputs = inputs
                .with_file("probe prompt", &context.project_path(&settings.prompt)?)
                .with_value("judge.model", &judge.model)
                .with_value("judge.max_tokens", judge.max_tokens);
        }
        TruthSource::Human => {
            if let Some(path) = &args.export {
                form::write(path, &drawn(&context, StageOutput::open(&context.layout, Stage::Filter, context.place)?.read()?))?;
                print_product(path.display());
                return Ok(());
            }
            inputs = inputs.with_file("truths", &filled_form(&context, args)?);
        }
    }
    if settings.truth != TruthSource::Human && (args.export.is_some() || args.truths.is_some()) {
        let message = format!("a form has no use where probe.truth is {}", settings.truth);
        return Err(StageFailure::usage(message).hint("leave --export and --truths out, or set probe.truth=human").into());
    }
    let mut is_new = false;
    run_stage(&context, inputs, |inputs, outputs| {
        is_new = true;
        probe(&context, inputs, outputs)
    })?;
    if context.is_dry_run {
        return Ok(());
    }
    let found = Found::read(&context)?;
    if is_new {
        print_note(found.line());
    }
    found.hold_against(settings.floor)
}

/// Where the filled form lies. One that is not there is written, for people to fill.
fn filled_form(context: &StageContext, args: &Args) -> anyhow::Result<PathBuf> {
    let path = args.truths.clone().unwrap_or_else(|| context.layout.truths_form(context.place.iteration));
    if path.exists() || context.is_dry_run {
        return Ok(path);
    }
    let rows = drawn(context, StageOutput::open(&context.layout, Stage::Filter, context.place)?.read()?);
    form::write(&path, &rows)?;
    match rows.len() {
        // Nothing was kept, so there is nothing to fill.
        0 => Ok(path),
        num => Err(StageFailure::input(format!("the labels wait for people: {num} questions stand in {}", path.display()))
            .hint(form::FILL_HINT)
            .into()),
    }
}

/// The questions that are checked: those with the smallest digest of seed and id, in the order of the curriculum.
fn drawn(context: &StageContext, kept: Vec<CurriculumRow>) -> Vec<CurriculumRow> {
    let digest = |row: &CurriculumRow| {
        *blake3::hash(format!("label-probe {} {}", context.profile.seed, row.challenge_id).as_bytes()).as_bytes()
    };
    let mut order: Vec<([u8; 32], CurriculumRow)> = kept.into_iter().map(|row| (digest(&row), row)).collect();
    order.sort_by_key(|(digest, _)| *digest);
    order.truncate(usize::try_from(context.profile.probe.sample_size).unwrap_or(usize::MAX));
    order.sort_by_key(|(_, row)| row.row);
    order.into_iter().map(|(_, row)| row).collect()
}

/// What is known of a question's true answer.
struct Truth {
    answer: Result<String, &'static str>,
    judge_reply: Option<String>,
}

fn probe(context: &StageContext, inputs: &StageInputs<'_>, outputs: &mut StageOutputs<'_>) -> anyhow::Result<()> {
    let rows = drawn(context, inputs.output(Stage::Filter)?.read()?);
    let truths = match context.profile.probe.truth {
        TruthSource::Exact => {
            let evaluator = context.profile.domain.evaluator;
            let evaluate = |row: &CurriculumRow| true_answer(evaluator, &row.question).ok_or("no_exact_answer");
            rows.iter().map(|row| Truth { answer: evaluate(row), judge_reply: None }).collect()
        }
        TruthSource::Human => form::read(inputs.path("truths")?, &rows)?
            .into_iter()
            .map(|truth| Truth { answer: truth.ok_or("not_filled"), judge_reply: None })
            .collect(),
        TruthSource::Judge => solved_by_judge(context, inputs, &rows)?,
    };
    let mut checks = Vec::new();
    for (row, truth) in rows.iter().zip(truths) {
        let verdict = match &truth.answer {
            Ok(answer) => grade(answer, &row.pseudo_label, &GradeOptions::default()).verdict,
            Err(_) => Verdict::Unknown,
        };
        outputs.count(verdict.as_str(), 1);
        if verdict == Verdict::Unknown {
            outputs.count(format!("unknown_{}", truth.answer.as_ref().err().unwrap_or(&"not_comparable")), 1);
        }
        checks.push(LabelCheck {
            challenge_id: row.challenge_id.clone(),
            row: row.row,
            question: row.question.clone(),
            pseudo_label: row.pseudo_label.clone(),
            vote_share: row.vote_share,
            truth_source: context.profile.probe.truth.to_string(),
            truth: truth.answer.ok(),
            verdict: verdict.to_string(),
            judge_reply: truth.judge_reply,
        });
    }
    let count = |verdict: Verdict| checks.iter().filter(|check| check.verdict == verdict.as_str()).count() as u64;
    let num_true = count(Verdict::Equal);
    let num_checked = num_true + count(Verdict::Different);
    outputs.metric("sample_size", checks.len() as f64);
    outputs.metric("num_checked", num_checked as f64);
    outputs.metric("num_unchecked", (checks.len() as u64 - num_checked) as f64);
    if num_checked > 0 {
        let interval = wilson(num_true, num_checked);
        outputs.metric("label_share", num_true as f64 / num_checked as f64);
        outputs.metric("label_low", interval.low);
        outputs.metric("label_high", interval.high);
    }
    if context.profile.is_judged(context.place.iteration, Phase::Curriculum) {
        for (name, value) in voted(context, inputs, &checks)? {
            outputs.metric(name, value);
        }
    }
    outputs.write_table(&checks)
}

/// Of the questions that the votes alone would have kept, whatever the Verifier says, those whose truth is known: how many labels are true; and of each
/// answer to them whether the Verifier, and whether the vote, says of it what is true. An answer that many gave counts as often.
fn voted(context: &StageContext, inputs: &StageInputs<'_>, checks: &[LabelCheck]) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let (settings, band) = (&context.profile.curriculum, context.profile.band(context.place.iteration));
    let votes = Gate { version: settings.gate_version, low: band.low, high: band.high, min_margin: settings.min_margin };
    let checked: BTreeMap<&str, &str> =
        checks.iter().filter_map(|check| Some((check.challenge_id.as_str(), check.truth.as_deref()?))).collect();
    let truth = |label: &Label| match context.profile.probe.truth {
        TruthSource::Exact => true_answer(context.profile.domain.evaluator, &label.question),
        TruthSource::Judge | TruthSource::Human => checked.get(label.challenge_id.as_str()).map(|truth| (*truth).to_owned()),
    };
    let (mut seen, mut labels): (HashSet<String>, BTreeMap<String, (Label, String)>) = Default::default();
    for label in streamed::<Label>(inputs.output(Stage::VoteLabel)?)? {
        let label = label?;
        let is_repeated = settings.drop_duplicates && !seen.insert(label.question.clone());
        if gate(true, is_repeated, label.pseudo_label.is_some(), false, label.vote_share, label.margin, &votes).is_some() {
            continue;
        }
        if let Some(truth) = truth(&label) {
            labels.insert(label.challenge_id.clone(), (label, truth));
        }
    }
    let is_equal = |truth: &str, answer: &str| grade(truth, answer, &GradeOptions::default()).verdict == Verdict::Equal;
    let num_true =
        labels.values().filter(|(label, truth)| is_equal(truth, label.pseudo_label.as_deref().unwrap_or_default())).count();
    let (mut num_answers, mut right) = (0_u64, [0_u64; 2]);
    for row in streamed::<JudgedAnswer>(inputs.output(Stage::Verify)?)? {
        let row = row?;
        let (Some((label, truth)), Some(score)) = (labels.get(&row.challenge_id), row.score) else { continue };
        let class = label.sample_classes.get(row.sample as usize).and_then(|class| usize::try_from(*class).ok());
        let Some((class, answer)) = class.and_then(|class| Some((class, label.class_answers.get(class)?))) else { continue };
        let (is_true, number) = (is_equal(truth, answer), row.equal_samples.len() as u64);
        num_answers += number;
        for (right, says) in right.iter_mut().zip([score >= 0.5, class == 0]) {
            *right += number * u64::from(says == is_true);
        }
    }
    let share = |part: u64, all: u64| part as f64 / all.max(1) as f64;
    Ok(vec![
        ("num_voted", labels.len() as f64),
        ("num_judged", num_answers as f64),
        ("voted_label_share", share(num_true as u64, labels.len() as u64)),
        ("verdict_accuracy", share(right[0], num_answers)),
        ("vote_accuracy", share(right[1], num_answers)),
    ])
}

/// The rows of a table, of which some are in memory at a time.
fn streamed<T: Table>(output: &StageOutput) -> anyhow::Result<impl Iterator<Item = anyhow::Result<T>>> {
    let rows = output.stream::<T>(BATCH_ROWS)?.flat_map(|batch| match batch {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error.into())],
    });
    Ok(rows)
}

/// The judge solves each question; it does not see the label, which it might be content with.
#[cfg(feature = "fetch")]
fn solved_by_judge(context: &StageContext, inputs: &StageInputs<'_>, rows: &[CurriculumRow]) -> anyhow::Result<Vec<Truth>> {
    use crate::console::Progress;
    use crate::template::Template;
    use rzero_algo::answer::extract_answer;
    use rzero_schema::vocab::Extraction;

    let endpoint = Endpoint::new(&context.profile.judge)?;
    let template = Template::new(&inputs.text("probe prompt")?, inputs.path("probe prompt")?, "question")?;
    let prompt = |row: &CurriculumRow| template.render(minijinja::context! { question => &row.question });
    let prompts = rows.iter().map(prompt).collect::<anyhow::Result<Vec<_>>>()?;
    let progress = Progress::start("asking the judge", rows.len() as u64, "questions");
    let replies = endpoint.ask_all(&prompts, &progress, &context.interrupt)?;
    let truth = |reply: Reply| match reply {
        Reply::Text(text) => Truth {
            answer: extract_answer(&text, Extraction::Box).map(|answer| answer.into_owned()).map_err(|_| "judge_unreadable"),
            judge_reply: Some(text),
        },
        Reply::Failed(problem) => Truth { answer: Err("judge_failed"), judge_reply: Some(problem) },
    };
    Ok(replies.into_iter().map(truth).collect())
}

#[cfg(not(feature = "fetch"))]
fn solved_by_judge(_: &StageContext, _: &StageInputs<'_>, _: &[CurriculumRow]) -> anyhow::Result<Vec<Truth>> {
    Err(StageFailure::usage("this build cannot ask a judge").hint("build it with the feature `fetch`").into())
}

/// What the manifest says of the labels.
struct Found {
    sample_size: f64,
    num_checked: f64,
    /// Share of true labels and its interval; none where none could be checked.
    share: Option<[f64; 3]>,
}

impl Found {
    fn read(context: &StageContext) -> anyhow::Result<Self> {
        let metrics = read_manifest(&context.layout.manifest(context.stage, context.place, context.shard))?.metrics;
        let metric = |name: &str| metrics.get(name).copied();
        let share = ["label_share", "label_low", "label_high"].map(metric);
        Ok(Self {
            sample_size: metric("sample_size").unwrap_or(0.0),
            num_checked: metric("num_checked").unwrap_or(0.0),
            share: if let [Some(share), Some(low), Some(high)] = share { Some([share, low, high]) } else { None },
        })
    }

    /// As people read it.
    fn line(&self) -> String {
        let Some([share, low, high]) = self.share.map(|figures| figures.map(|share| 100.0 * share)) else {
            return format!("labels: none of {} can be checked", self.sample_size);
        };
        let line = format!("labels: {share:.0} % true [{low:.0}, {high:.0}] of {} checked", self.num_checked);
        match self.sample_size - self.num_checked {
            0.0 => line,
            unchecked => format!("{line} ({unchecked} of {} cannot be checked)", self.sample_size),
        }
    }

    /// The stop rule. Labels that nobody could check stop nothing.
    fn hold_against(&self, floor: f64) -> anyhow::Result<()> {
        match self.share {
            Some([_, low, _]) if low < floor => {
                let message = format!(
                    "the labels are too often false: the lower end of their true share, {:.1} %, lies under probe.floor, {:.1} %; {}",
                    100.0 * low,
                    100.0 * floor,
                    self.line()
                );
                Err(StageFailure::stopped(message)
                    .hint("a lower probe.floor goes on from here; another curriculum needs another run directory")
                    .into())
            }
            _ => Ok(()),
        }
    }
}
