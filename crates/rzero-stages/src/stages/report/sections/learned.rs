//! Held-out problems that were learned and that were lost.

use super::title_of;
use crate::stages::report::collect::{Change, RunReport};
use crate::stages::report::page::{Example, Examples, Group, Section, shown};

pub(in crate::stages::report) fn section(runs: &[RunReport]) -> Section {
    let group = |run: &RunReport| {
        let mut group = Group { title: title_of(run, runs), ..Group::default() };
        if let Some(changed) = &run.changes {
            let counts = &changed.counts;
            let of = |what: &str, num: u64, items: &[Change]| Examples {
                title: format!(
                    "{what}: {num} of those asked, {} shown (base against iteration {})",
                    items.len(),
                    changed.iteration
                ),
                items: items.iter().map(example).collect(),
            };
            group.examples = vec![of("Learned", counts.num_gained, &changed.learned), of("Lost", counts.num_lost, &changed.lost)];
            group.examples.retain(|examples| !examples.items.is_empty());
        }
        group
    };
    Section {
        id: "learned",
        title: "Learned and lost",
        lead: "Held-out problems whose greedy answer was wrong with the base model and is right now, and the other way round, evenly spread \
               over all such problems."
            .to_owned(),
        groups: runs.iter().map(group).collect(),
    }
}

fn example(change: &Change) -> Example {
    let mut parts = Vec::new();
    parts.extend(change.question.as_deref().map(|question| ("asked", shown(question))));
    parts.extend([("answer", shown(&change.gold)), ("base", shown(&change.before)), ("now", shown(&change.after))]);
    Example { title: shown(&change.item_id), parts }
}
