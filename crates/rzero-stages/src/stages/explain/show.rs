//! The life of a question as text.

use super::collect::{Life, Vote};
use crate::markdown::{ABSENT, legible, new_table};
use comfy_table::{CellAlignment, Table};

/// Longest completion that stands in a table, in characters.
const SHOWN: usize = 100;

pub(super) fn text(life: &Life) -> String {
    let mut parts = vec![origin(life)];
    if !life.answers.is_empty() {
        parts.push(format!("The Solver's answers\n{}", answers(life)));
    }
    parts.extend(life.label.as_ref().map(vote));
    parts.extend(gate(life));
    if let Some(reward) = &life.challenger_reward {
        let part = |value: Option<f64>| value.map_or_else(|| ABSENT.to_owned(), |value| format!("{value:.3}"));
        let cluster = reward.cluster.map_or_else(|| "none".to_owned(), |cluster| cluster.to_string());
        parts.push(format!(
            "What the Challenger got\n  reward {:.3}, advantage {:+.3}; uncertainty {}, repetition {} in cluster {cluster}",
            reward.reward,
            reward.advantage,
            part(reward.uncertainty),
            part(reward.repetition)
        ));
    }
    for step in &life.trained_in {
        let mut table = left_table(&["sample", "reward", "advantage", "status", "answer", "completion"]);
        for row in &step.rollouts {
            let answer = row.answer.as_deref().unwrap_or(ABSENT);
            let (reward, advantage) = (format!("{:.0}", row.reward), format!("{:+.3}", row.advantage));
            table.add_row([&row.sample.to_string(), &reward, &advantage, &row.status, answer, &brief(&row.completion)]);
        }
        parts.push(format!("Trained on in iteration {}, the Solver's step {}\n{table}", step.iteration, step.step));
    }
    if !life.later_answers.is_empty() {
        let mut table = left_table(&["Solver after iteration", "status", "answer", "completion"]);
        for row in &life.later_answers {
            let name = if row.iteration == 0 { "0 (base)".to_owned() } else { row.iteration.to_string() };
            let answer = row.answer.as_deref().unwrap_or(ABSENT);
            table.add_row([&name, &row.status, answer, &brief(&row.completion)]);
        }
        parts.push(format!("What Solvers answer, each token the most likely one\n{table}"));
    }
    parts.join("\n\n")
}

fn origin(life: &Life) -> String {
    let mut lines = vec![format!("Question {}, written by {}", life.challenge_id, life.written_by)];
    let mut line = |name: &str, text: Option<&str>| lines.extend(text.map(|text| format!("  {name:<12} {}", legible(text))));
    line("prompt", life.prompt.as_deref());
    line("completion", Some(&life.completion));
    line("ended by", Some(&life.finish_reason));
    line("status", Some(&life.challenge_status));
    line("question", life.question.as_deref());
    line("its answer", life.proposed_answer.as_deref());
    line("true answer", life.true_answer.as_deref());
    lines.join("\n")
}

fn answers(life: &Life) -> Table {
    let mut table = left_table(&["sample", "tokens", "status", "votes for", "completion"]);
    for row in &life.answers {
        let (status, answer) = (row.status.as_deref().unwrap_or(ABSENT), row.answer.as_deref().unwrap_or(ABSENT));
        table.add_row([&row.sample.to_string(), &row.num_tokens.to_string(), status, answer, &brief(&row.completion)]);
    }
    table
}

fn vote(vote: &Vote) -> String {
    let classes =
        vote.classes.iter().map(|(answer, count)| format!("{} x {count}", legible(answer))).collect::<Vec<_>>().join(", ");
    format!(
        "The vote\n  label        {}\n  share        {:.3} of {} answers; margin {:.3}, entropy {:.3} nats; {} parsed, {} cut off\n  classes      {}",
        vote.pseudo_label.as_deref().unwrap_or("none: no answer could be read"),
        vote.vote_share,
        vote.num_samples,
        vote.margin,
        vote.vote_entropy,
        vote.num_parsed,
        vote.num_truncated,
        if classes.is_empty() { ABSENT } else { &classes },
    )
}

fn gate(life: &Life) -> Option<String> {
    let gate = life.gate.as_ref()?;
    let band = gate.band.map_or_else(String::new, |(low, high)| format!(" (band of vote shares: {low} to {high})"));
    let mut text = match &gate.drop_reason {
        None => format!("The gate, version {}\n  kept{band}", gate.gate_version),
        Some(reason) => format!("The gate, version {}\n  dropped: {reason}{band}", gate.gate_version),
    };
    if let Some(probe) = &life.probe {
        let truth = probe.truth.as_deref().unwrap_or("unknown");
        text.push_str(&format!("\n  the label was probed: truth by {}: {truth}, verdict {}", probe.truth_source, probe.verdict));
    }
    if gate.is_kept && life.trained_in.is_empty() {
        text.push_str("\n  no step of the Solver has trained on it");
    }
    Some(text)
}

fn left_table(header: &[&str]) -> Table {
    let mut table = new_table(header);
    table.column_iter_mut().for_each(|column| {
        column.set_cell_alignment(CellAlignment::Left);
    });
    table
}

fn brief(text: &str) -> String {
    let text = legible(text);
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}
