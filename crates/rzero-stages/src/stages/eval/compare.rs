//! `eval --compare A B`: two finished evaluations of the same problems against each other, problem by problem.
//!
//! Reads the results of two runs, or of two iterations of one, and prints both accuracies with their intervals, the paired gain, how
//! many problems changed sides with McNemar's exact test, and examples of them. No model is read and nothing is written. Other problems
//! on either side are an error: a gain over other problems is none.
//!
//! [`show`] prints it for people, [`json`] for machines.

mod json;
mod show;

use crate::console::{Verbosity, print_product, start_log};
use crate::context::project_root;
use crate::exit::StageFailure;
use crate::run_dir::MirrorArgs;
use crate::run_record::{RunRecord, no_run};
use crate::scores::{Bootstrap, Changes, Evaluation, Figure, Measure, averages};
use rzero_algo::choice::question_with_options;
use rzero_io::atomic::digest_file;
use rzero_io::error::IoError;
use rzero_io::layout::RunLayout;
use rzero_io::reader::read_foreign_table;
use rzero_io::set::StageOutput;
use rzero_schema::ids::Place;
use rzero_schema::tables::{EvalItem, EvalResult};
use rzero_schema::vocab::{EvalMode, EvalStyle, Phase, Stage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Flags of `eval --compare`.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// Evaluation before: a run directory, with `@` and an iteration behind it, such as data/runs/tiny@0; without, the newest there is
    #[arg(value_name = "A")]
    before: String,

    /// Evaluation after, in the same form
    #[arg(value_name = "B")]
    after: String,

    /// One JSON object instead of tables, with every problem that changed
    #[arg(long)]
    json: bool,

    /// How many problems of each kind of change are shown
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,

    /// Folder that the profile's paths are relative to, where the questions are looked for; left out, the nearest that looks like it
    #[arg(long, env = "RZERO_ROOT", value_name = "DIR")]
    project_root: Option<PathBuf>,

    #[command(flatten)]
    mirrors: MirrorArgs,
}

/// One of the two evaluations.
#[derive(Debug)]
struct Side {
    run: PathBuf,
    iteration: u32,
    record: RunRecord,
    evaluation: Evaluation,
    /// The greedy completions, by problem.
    greedy: BTreeMap<String, EvalResult>,
    /// Digest of the set of problems.
    items_digest: Option<String>,
}

/// Everything that is printed.
#[derive(Debug)]
struct Comparison {
    before: Side,
    after: Side,
    lines: Vec<Line>,
    gained: Vec<Change>,
    lost: Vec<Change>,
    /// Why no questions are shown, where they are not.
    missing_questions: Option<String>,
}

/// What a line of the comparison is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Benchmark,
    Average,
    All,
}

/// A benchmark, an average, or all problems.
#[derive(Debug)]
struct Line {
    kind: Kind,
    name: String,
    num_items: usize,
    /// Benchmarks of an average that are not in the set.
    missing: Vec<String>,
    /// Greedy, then mean@k.
    measures: [Pair; 2],
    changes: Option<Changes>,
    /// Shares of the greedy completions that could not be read, before and after; none of an average.
    unread: Option<[f64; 2]>,
}

/// One measure before and after.
#[derive(Debug)]
struct Pair {
    before: Option<Figure>,
    after: Option<Figure>,
    gain: Option<Figure>,
}

/// A problem whose greedy verdict changed.
#[derive(Debug)]
struct Change {
    item_id: String,
    benchmark: String,
    question: Option<String>,
    gold: String,
    before: Answer,
    after: Answer,
}

/// What one side answered.
#[derive(Debug)]
struct Answer {
    /// Canonical form; none where there is none.
    answer: Option<String>,
    status: String,
    completion: String,
}

/// Compares and prints.
///
/// # Errors
/// When an evaluation is not there or cannot be believed, or the two are over different problems: exit code 3.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let comparison =
        compare(Side::read(&args.before, &args.mirrors)?, Side::read(&args.after, &args.mirrors)?, args.project_root.as_deref())?;
    if args.json {
        print_product(json::object(&comparison));
    } else {
        print_product(show::tables(&comparison, args.examples));
    }
    Ok(())
}

fn compare(before: Side, after: Side, typed_root: Option<&Path>) -> anyhow::Result<Comparison> {
    require_same_problems(&before, &after)?;
    let (questions, missing_questions) = match questions(&after, typed_root) {
        Ok(questions) => (questions, None),
        Err(error) => (BTreeMap::new(), Some(format!("{error:#}"))),
    };
    let changes = |is_right: bool| -> Vec<Change> {
        let pairs = before.evaluation.items().iter().zip(after.evaluation.items());
        pairs
            .filter(|(before, after)| after.is_greedy_right == is_right && before.is_greedy_right != is_right)
            .map(|(item, _)| Change {
                item_id: item.item_id.clone(),
                benchmark: item.benchmark.clone(),
                question: questions.get(&item.item_id).cloned(),
                gold: item.gold.clone(),
                before: Answer::of(before.greedy.get(&item.item_id)),
                after: Answer::of(after.greedy.get(&item.item_id)),
            })
            .collect()
    };
    let (gained, lost) = (changes(true), changes(false));
    let lines = lines(&before.evaluation, &after);
    Ok(Comparison { before, after, lines, gained, lost, missing_questions })
}

/// Each benchmark, each average that the profile of the second names, and all problems where there are several benchmarks.
fn lines(before: &Evaluation, after: &Side) -> Vec<Line> {
    let profile = &after.record.profile;
    let draws = Bootstrap { resamples: profile.eval.bootstrap_resamples, seed: profile.seed };
    let measures = [Measure::Greedy, Measure::Mean];
    let of_problems = |kind: Kind, name: String, before: &Evaluation, after: &Evaluation| Line {
        kind,
        name,
        num_items: after.items().len(),
        missing: Vec::new(),
        measures: measures.map(|measure| Pair {
            before: Some(before.accuracy(measure, draws)),
            after: Some(after.accuracy(measure, draws)),
            gain: after.gain_over(before, measure, draws),
        }),
        changes: after.changes_from(before),
        unread: Some([before, after].map(|evaluation| evaluation.unparsed_share(EvalMode::Greedy))),
    };
    let pairs = before.by_benchmark().into_iter().zip(after.evaluation.by_benchmark());
    let mut lines: Vec<Line> =
        pairs.map(|((_, before), (name, after))| of_problems(Kind::Benchmark, name, &before, &after)).collect();
    let averages_before = averages(&profile.eval.groups, before);
    let averages_after = averages(&profile.eval.groups, &after.evaluation);
    let num_benchmarks = lines.len();
    lines.extend(averages_before.into_iter().zip(averages_after).map(|(before, after)| Line {
        kind: Kind::Average,
        num_items: after.num_items(),
        measures: measures.map(|measure| Pair {
            before: before.accuracy(measure, draws),
            after: after.accuracy(measure, draws),
            gain: after.gain_over(&before, measure, draws),
        }),
        changes: after.changes_from(&before),
        unread: None,
        name: after.name,
        missing: after.missing,
    }));
    if num_benchmarks > 1 {
        lines.push(of_problems(Kind::All, "all problems".to_owned(), before, &after.evaluation));
    }
    lines
}

fn require_same_problems(before: &Side, after: &Side) -> anyhow::Result<()> {
    if after.evaluation.has_items_of(&before.evaluation) {
        return Ok(());
    }
    let (of_before, of_after) = (before.evaluation.items(), after.evaluation.items());
    let first = of_before.iter().zip(of_after).find(|(one, other)| one.item_id != other.item_id || one.gold != other.gold);
    let difference = match first {
        Some((one, other)) if one.item_id != other.item_id => {
            format!("the first that differs is {} there and {} here", one.item_id, other.item_id)
        }
        Some((one, _)) => format!("{} has another answer", one.item_id),
        None => "the smaller set is the beginning of the larger one".to_owned(),
    };
    let message = format!(
        "{} and {} were evaluated on different problems ({} and {}): {difference}",
        before.name(),
        after.name(),
        of_before.len(),
        of_after.len()
    );
    let hint = "evaluate both on the same set: eval.items and eval.max_items of their profiles say which problems are asked";
    Err(StageFailure::input(message).hint(hint).into())
}

impl Side {
    /// The evaluation that `RUN` or `RUN@ITERATION` names.
    fn read(typed: &str, mirrors: &MirrorArgs) -> anyhow::Result<Self> {
        let with_iteration = typed.rsplit_once('@').and_then(|(run, iteration)| Some((run, iteration.parse::<u32>().ok()?)));
        let (run, iteration) = with_iteration.map_or((typed, None), |(run, iteration)| (run, Some(iteration)));
        let layout = mirrors.layout_of(Path::new(run))?;
        let Some(record) = RunRecord::read(&layout)? else {
            let hint = "name the directory of a run, such as data/runs/tiny, or an iteration of one, such as data/runs/tiny@0";
            return Err(no_run(Path::new(run)).hint(hint).into());
        };
        let output = match iteration {
            Some(iteration) => open(&layout, iteration)?,
            None => newest(&layout)?,
        };
        let iteration = output.place().iteration;
        let rows = output.read::<EvalResult>()?;
        let Some(evaluation) = Evaluation::of(&rows, EvalStyle::Free)? else {
            return Err(StageFailure::input(format!("the evaluation of iteration {iteration} in {run} holds no problem")).into());
        };
        let items_digest = output.manifests().first().and_then(|manifest| manifest.digests.get("items").cloned());
        let is_greedy =
            |row: &EvalResult| row.eval_mode == EvalMode::Greedy.as_str() && row.eval_style == EvalStyle::Free.as_str();
        let greedy = rows.into_iter().filter(is_greedy).map(|row| (row.item_id.clone(), row)).collect();
        Ok(Self { run: run.into(), iteration, record, evaluation, greedy, items_digest })
    }

    fn name(&self) -> String {
        format!("{}@{}", self.run.display(), self.iteration)
    }
}

fn open(layout: &RunLayout, iteration: u32) -> Result<StageOutput, IoError> {
    StageOutput::open(layout, Stage::Eval, Place::new(iteration, Phase::Eval, 0))
}

fn newest(layout: &RunLayout) -> anyhow::Result<StageOutput> {
    for iteration in layout.iterations()?.into_iter().rev() {
        match open(layout, iteration) {
            Ok(output) => return Ok(output),
            Err(IoError::NoOutput { .. } | IoError::MissingShards { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let message = format!("no evaluation in {} has finished", layout.shown(layout.root()).display());
    Err(StageFailure::input(message).hint("run eval there first").into())
}

/// The questions of a side by problem, where its set of problems is still there as it was.
fn questions(side: &Side, typed_root: Option<&Path>) -> anyhow::Result<BTreeMap<String, String>> {
    let path = Path::new(&side.record.profile.eval.items);
    let path = if path.is_absolute() { path.to_owned() } else { project_root(typed_root)?.join(path) };
    if side.items_digest.as_ref() != Some(&digest_file(&path)?.digest) {
        return Err(StageFailure::input(format!("{} is not the set that was evaluated", path.display())).into());
    }
    let items = read_foreign_table::<EvalItem>(&path)?;
    Ok(items.into_iter().map(|item| (item.item_id, question_with_options(&item.question, &item.options))).collect())
}

impl Answer {
    fn of(result: Option<&EvalResult>) -> Self {
        let text = |part: fn(&EvalResult) -> &String| result.map(part).cloned().unwrap_or_default();
        Self {
            answer: result.and_then(|result| result.answer.clone()),
            status: text(|result| &result.answer_status),
            completion: text(|result| &result.completion),
        }
    }
}
