//! In which settings runs differ from the paper's, and from one another.

use crate::markdown::ABSENT;
use rzero_schema::profile::Profile;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The paper's figures, as they stood when this binary was built.
const PAPER: &str = include_str!("../../../../../pipelines/profiles/paper.toml");
/// What its domain says.
const DOMAIN: &str = include_str!("../../../../../pipelines/domains/text/domain.toml");

/// A setting that is not the paper's in some run.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) setting: String,
    pub(super) paper: String,
    /// What it is in each run.
    pub(super) runs: Vec<String>,
    /// Whether the runs themselves differ in it.
    pub(super) among_runs: bool,
}

fn paper(overrides: &[String]) -> anyhow::Result<Profile> {
    Ok(Profile::from_toml(PAPER, overrides, |_| Ok(DOMAIN.to_owned()))?)
}

/// The settings in which a run is not as the paper.
pub(super) fn differences(profiles: &[&Profile]) -> anyhow::Result<Vec<Difference>> {
    let paper = settings(&paper(&[])?)?;
    let runs: Vec<BTreeMap<String, String>> = profiles.iter().map(|profile| settings(profile)).collect::<anyhow::Result<_>>()?;
    let names: BTreeSet<&String> = runs.iter().chain([&paper]).flat_map(BTreeMap::keys).collect();
    let of = |settings: &BTreeMap<String, String>, name: &str| settings.get(name).cloned().unwrap_or_else(|| ABSENT.to_owned());
    let difference = |name: &String| {
        let (paper, runs) = (of(&paper, name), runs.iter().map(|run| of(run, name)).collect::<Vec<_>>());
        let among_runs = runs.iter().any(|value| *value != runs[0]);
        runs.iter().any(|value| *value != paper).then(|| Difference { setting: name.clone(), paper, runs, among_runs })
    };
    Ok(names.into_iter().filter_map(difference).collect())
}

/// Every setting by its full name, such as `solver.grpo.kl_coef`.
fn settings(profile: &Profile) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    flatten(String::new(), &serde_json::to_value(profile)?, &mut found);
    found.remove("name");
    Ok(found)
}

fn flatten(name: String, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, member)| {
            flatten(if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, member, found);
        }),
        Value::String(text) => drop(found.insert(name, text.clone())),
        Value::Null => drop(found.insert(name, ABSENT.to_owned())),
        other => drop(found.insert(name, other.to_string())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn the_paper_does_not_differ_from_itself_and_what_was_changed_is_told() {
        let paper = paper(&[]).unwrap();
        assert_eq!(differences(&[&paper]).unwrap(), []);
        let other = super::paper(&["solver.grpo.kl_coef=0.5".to_owned()]).unwrap();
        let found = differences(&[&paper, &other]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].setting.as_str(), found[0].runs[1].as_str(), found[0].among_runs),
            ("solver.grpo.kl_coef", "0.5", true)
        );
        assert_eq!(found[0].runs[0], found[0].paper);
    }
}
