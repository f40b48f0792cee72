//! The classes of answers in a vote.

use crate::equivalence::compare::{other_value, same_bodies};
use crate::equivalence::form;
use crate::normalize::{Form, is_canonical_integer};
use std::collections::BTreeMap;

/// Numbers the answers of one vote so that equal answers have equal numbers. Answers are canonical forms.
///
/// An equivalence relation whatever the answers are, and the same one in any order:
///
/// 1. Answers whose bodies are the same form a group; groups are closed under transitivity.
/// 2. A percentage or angle that no answer repeats as a bare number goes to the group of its other value, where there is one.
/// 3. Within a group, an answer that leaves out the unit or the name joins those that have it where these agree on it, and stays
///    apart from them where they do not.
#[must_use]
pub fn classes(answers: &[&str]) -> Vec<usize> {
    let mut distinct: Vec<&str> = answers.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let numbered = |class_of: &dyn Fn(usize) -> usize| {
        answers.iter().map(|answer| distinct.binary_search(answer).map_or(usize::MAX, class_of)).collect()
    };
    // Whole numbers are the same where they are written the same, and nothing stands beside them.
    if distinct.iter().all(|answer| is_canonical_integer(answer)) {
        return numbered(&|at| at);
    }
    let forms: Vec<Option<Form>> = distinct.iter().map(|answer| form(answer)).collect();
    let mut groups = Groups((0..distinct.len()).collect());
    for (at, one) in forms.iter().enumerate() {
        for (other_at, other) in forms.iter().enumerate().skip(at + 1) {
            if let (Some(one), Some(other)) = (one, other)
                && groups.root(at) != groups.root(other_at)
                && same_bodies(one, other)
            {
                groups.join(at, other_at);
            }
        }
    }
    let mut group: Vec<usize> = (0..distinct.len()).map(|at| groups.root(at)).collect();
    let is_bare = |form: &Form| form.unit.is_none();
    let before = group.clone();
    let mut is_moved = vec![false; group.len()];
    for (at, one) in forms.iter().enumerate() {
        let Some(value) = one.as_ref().and_then(other_value) else { continue };
        let bare = |same_group: bool| {
            forms.iter().enumerate().find(|(other_at, other)| {
                other.as_ref().is_some_and(|other| {
                    is_bare(other) && if same_group { before[*other_at] == before[at] } else { same_bodies(&value, other) }
                })
            })
        };
        if bare(true).is_none()
            && let Some((other_at, _)) = bare(false)
        {
            group[at] = before[other_at];
            is_moved[at] = true;
        }
    }
    let names = beside(&group, &forms, &is_moved);
    numbered(&|at| names[at])
}

/// Classes within groups, by what stands beside the bodies. What was moved for its other value has left its unit behind.
fn beside(group: &[usize], forms: &[Option<Form>], is_moved: &[bool]) -> Vec<usize> {
    type Beside = (Option<String>, Option<String>);
    let of = |at: usize| -> Beside {
        forms[at].as_ref().map_or((None, None), |form| {
            (form.unit.clone().filter(|_| !is_moved[at]), form.name.as_ref().map(|name| name.text.clone()))
        })
    };
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, group) in group.iter().enumerate() {
        members.entry(*group).or_default().push(at);
    }
    let mut names = vec![0; group.len()];
    for members in members.values() {
        let parts: Vec<Beside> = members.iter().map(|at| of(*at)).collect();
        let only = |part: &dyn Fn(&Beside) -> Option<&String>| {
            let mut found: Vec<&String> = parts.iter().filter_map(part).collect();
            found.sort_unstable();
            found.dedup();
            if found.len() == 1 { Some(found[0].clone()) } else { None }
        };
        let (unit, name) = (only(&|part: &Beside| part.0.as_ref()), only(&|part: &Beside| part.1.as_ref()));
        let mut first: BTreeMap<Beside, usize> = BTreeMap::new();
        for (at, part) in members.iter().zip(&parts) {
            let key = (part.0.clone().or_else(|| unit.clone()), part.1.clone().or_else(|| name.clone()));
            names[*at] = *first.entry(key).or_insert(*at);
        }
    }
    names
}

/// Disjoint sets; the root of each is its smallest member.
struct Groups(Vec<usize>);

impl Groups {
    fn root(&self, at: usize) -> usize {
        let mut at = at;
        while self.0[at] != at {
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, left: usize, right: usize) {
        let (left, right) = (self.root(left), self.root(right));
        self.0[left.max(right)] = left.min(right);
    }
}
