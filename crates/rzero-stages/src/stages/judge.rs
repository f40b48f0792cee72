//! `judge`: a second opinion on grades, by a model behind an OpenAI-compatible endpoint.
//!
//! Reads the `eval_results` of eval and the problems they belong to; asks about every answer that the grader calls different or
//! unknown, and about a share of those it calls equal, drawn by seed and key. Writes `judgements`, a table of its own: the grader's
//! verdict stays what it is. A row that could not be judged is there without a verdict, with the reason. Optional: nothing of a run
//! depends on it.
//!
//! Departure from the released code: there the question and the true answer change places in the judge's prompt.

use crate::args::{CommonArgs, EXIT_CODES_HELP};
use crate::console::Progress;
use crate::context::StageContext;
use crate::endpoint::{Endpoint, Reply};
use crate::exit::StageFailure;
use crate::frame::run_stage;
use crate::inputs::StageInputs;
use crate::outputs::StageOutputs;
use crate::template::Template;
use minijinja::context;
use rzero_io::reader::read_foreign_table;
use rzero_schema::tables::{EvalItem, EvalResult, Judgement};
use rzero_schema::vocab::{Phase, Stage, Verdict};
use std::collections::{BTreeMap, BTreeSet};

/// Ask a judge model about the grades of an evaluation.
#[derive(Debug, clap::Parser)]
#[command(name = "judge", version, after_help = EXIT_CODES_HELP)]
pub struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

/// Runs the stage.
///
/// # Errors
/// As [`run_stage`]; also when the profile names no judge, or it cannot be reached or refuses to serve.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let context = StageContext::new(Stage::Judge, &args.common, &[Phase::Eval])?;
    let settings = &context.profile.judge;
    let endpoint = Endpoint::new(settings)?;
    // A judge is known by the name of its model: the same one at another address is the same judge.
    let inputs = StageInputs::new(&context)
        .with_stage(Stage::Eval)
        .with_file("items", &context.project_path(&context.profile.eval.items)?)
        .with_file("judge prompt", &context.project_path(&settings.prompt)?)
        .with_value("judge.model", &settings.model)
        .with_value("judge.equal_share", settings.equal_share)
        .with_value("judge.max_tokens", settings.max_tokens);
    run_stage(&context, inputs, |inputs, outputs| judge_shard(&context, &endpoint, inputs, outputs))
}

/// Answers that are asked about before what came of them is written.
const CHUNK_ROWS: usize = 1024;

fn judge_shard(
    context: &StageContext,
    endpoint: &Endpoint,
    inputs: &StageInputs<'_>,
    outputs: &mut StageOutputs<'_>,
) -> anyhow::Result<()> {
    let items = read_items(inputs)?;
    let prompt = Template::new(&inputs.text("judge prompt")?, inputs.path("judge prompt")?, "question, gold, answer")?;
    let results = shard_results(context, inputs.output(Stage::Eval)?.read::<EvalResult>()?)?;
    let mut asked = Vec::new();
    for (result, verdict) in &results {
        match choice_of(context, result, *verdict) {
            Choice::Asked => {
                outputs.count(format!("asked_{verdict}"), 1);
                asked.push((result, *verdict));
            }
            Choice::NoAnswer => outputs.count("not_asked_no_answer", 1),
            Choice::NotDrawn => outputs.count("not_asked_equal", 1),
        }
    }
    let progress = Progress::start("judging", asked.len() as u64, "answers");
    let mut writer = outputs.table_writer::<Judgement>()?;
    let mut first_problem = None;
    let mut num_without = 0;
    for chunk in asked.chunks(CHUNK_ROWS) {
        let prompts = chunk.iter().map(|(result, _)| ask(&prompt, &items, result)).collect::<anyhow::Result<Vec<_>>>()?;
        let replies = endpoint.ask_all(&prompts, &progress, &context.interrupt)?;
        let mut rows = Vec::new();
        for ((result, verdict), reply) in chunk.iter().zip(replies) {
            let row = judgement(context, result, *verdict, &reply);
            outputs.count(format!("judge_{}", outcome(&row, &reply)), 1);
            if let (Reply::Failed(problem), None) = (&reply, &first_problem) {
                first_problem = Some(problem.clone());
            }
            num_without += u64::from(row.judge_verdict.is_none());
            rows.push(row);
        }
        writer.write(&rows)?;
    }
    if num_without > 0 {
        let problem = first_problem.unwrap_or_else(|| "replies do not end in EQUAL or DIFFERENT".to_owned());
        tracing::warn!("{num_without} of {} answers have no verdict of the judge, the first because: {problem}", asked.len());
    }
    outputs.metric("num_asked", asked.len() as f64);
    outputs.finish_table(writer)
}

/// The results of this shard with the grader's verdicts, in an order that does not depend on how the evaluation was cut.
fn shard_results(context: &StageContext, mut results: Vec<EvalResult>) -> anyhow::Result<Vec<(EvalResult, Verdict)>> {
    let rows: Vec<u64> = results.iter().map(|result| result.row).collect::<BTreeSet<_>>().into_iter().collect();
    let mine = context.shard_rows(rows.len() as u64);
    let mine: BTreeSet<u64> = rows[mine.start as usize..mine.end as usize].iter().copied().collect();
    results.retain(|result| mine.contains(&result.row));
    results.sort_by(|left, right| {
        let key = |result: &EvalResult| (result.row, result.sample);
        let words = |result: &EvalResult| (result.eval_style.clone(), result.eval_mode.clone());
        (key(left).0, words(left), key(left).1).cmp(&(key(right).0, words(right), key(right).1))
    });
    results
        .into_iter()
        .map(|result| {
            let verdict = result.verdict.parse().map_err(|error| {
                StageFailure::input(format!("eval result of problem {}: {error}", result.item_id)).hint("rerun eval")
            })?;
            Ok((result, verdict))
        })
        .collect()
}

/// Whether the judge is asked about an answer.
enum Choice {
    Asked,
    /// There is nothing to compare.
    NoAnswer,
    /// The grader calls it equal, and it is not in the sample.
    NotDrawn,
}

fn choice_of(context: &StageContext, result: &EvalResult, verdict: Verdict) -> Choice {
    if result.answer.is_none() {
        return Choice::NoAnswer;
    }
    let EvalResult { eval_style, eval_mode, sample, item_id, .. } = result;
    let key = format!("judge {} {eval_style} {eval_mode} {sample} {item_id}", context.profile.seed);
    match verdict == Verdict::Equal && drawn_share(&key) >= context.profile.judge.equal_share {
        true => Choice::NotDrawn,
        false => Choice::Asked,
    }
}

/// Where a key falls in [0, 1): the same in every shard.
fn drawn_share(key: &str) -> f64 {
    let bytes = *blake3::hash(key.as_bytes()).as_bytes();
    let word = u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]);
    (word >> 11) as f64 / (1u64 << 53) as f64
}

/// The problems by id. They must be those that the evaluation was made from.
fn read_items(inputs: &StageInputs<'_>) -> anyhow::Result<BTreeMap<String, EvalItem>> {
    let path = inputs.path("items")?;
    let of_eval = inputs.output(Stage::Eval)?.manifests().first().and_then(|manifest| manifest.digests.get("items"));
    if of_eval.is_some_and(|digest| inputs.digests().get("items") != Some(digest)) {
        let message = format!("{} is not the set of problems that the evaluation was made from", path.display());
        return Err(StageFailure::input(message).hint("restore it, or rerun eval with --overwrite").into());
    }
    let items = read_foreign_table::<EvalItem>(path)?;
    Ok(items.into_iter().map(|item| (item.item_id.clone(), item)).collect())
}

fn ask(prompt: &Template, items: &BTreeMap<String, EvalItem>, result: &EvalResult) -> anyhow::Result<String> {
    let Some(item) = items.get(&result.item_id) else {
        let message = format!("an eval result answers problem {}, which is not in the set of problems", result.item_id);
        return Err(StageFailure::input(message).hint("rerun eval with --overwrite").into());
    };
    prompt.render(context! { question => question_with_options(item), gold => &result.gold, answer => &result.answer })
}

/// The problem as a person would read it, its choices behind their letters.
fn question_with_options(item: &EvalItem) -> String {
    let mut text = item.question.clone();
    for (letter, option) in ('A'..='Z').zip(&item.options) {
        text.push_str(&format!("\n({letter}) {option}"));
    }
    text
}

fn judgement(context: &StageContext, result: &EvalResult, verdict: Verdict, reply: &Reply) -> Judgement {
    let (judge_verdict, judge_reply) = match reply {
        Reply::Text(text) => (read_verdict(text), text.clone()),
        Reply::Failed(problem) => (None, problem.clone()),
    };
    Judgement {
        item_id: result.item_id.clone(),
        row: result.row,
        benchmark: result.benchmark.clone(),
        eval_style: result.eval_style.clone(),
        eval_mode: result.eval_mode.clone(),
        sample: result.sample,
        gold: result.gold.clone(),
        answer: result.answer.clone(),
        verdict: verdict.to_string(),
        judge_verdict: judge_verdict.map(|verdict| verdict.to_string()),
        judge_reply,
        judge_model: context.profile.judge.model.clone(),
    }
}

/// What is counted of a judged row.
fn outcome<'a>(row: &'a Judgement, reply: &Reply) -> &'a str {
    match (&row.judge_verdict, reply) {
        (Some(verdict), _) => verdict,
        (None, Reply::Text(_)) => "unreadable",
        (None, Reply::Failed(_)) => "failed",
    }
}

/// The verdict in a reply: the one word on its last line that is not blank. Anything else is none, since a guess would be ours.
fn read_verdict(reply: &str) -> Option<Verdict> {
    match reply.trim_end().lines().next_back()?.trim() {
        "EQUAL" => Some(Verdict::Equal),
        "DIFFERENT" => Some(Verdict::Different),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_one_of_two_words() {
        for (reply, expected) in [
            ("EQUAL", Some(Verdict::Equal)),
            ("They are not EQUAL.\nDIFFERENT\n \n", Some(Verdict::Different)),
            ("Both are 7.\r\n  EQUAL \r\n", Some(Verdict::Equal)),
            ("equal", None),
            ("EQUAL or DIFFERENT", None),
            ("not DIFFERENT", None),
            ("EQUAL\nThat is my verdict.", None),
            ("\n", None),
            ("", None),
        ] {
            assert_eq!(read_verdict(reply), expected, "{reply:?}");
        }
    }

    #[test]
    fn a_share_is_drawn_evenly() {
        let num = (0..10_000).filter(|row| drawn_share(&format!("judge 7 free sampled {row} item")) < 0.05).count();
        assert!((400..600).contains(&num), "{num}");
    }
}
