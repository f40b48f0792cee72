//! A domain as a folder of text: how its `domain.toml` and a profile become one, and what of it fits together.

use crate::profile::{DomainSettings, Profile, ProfileError, apply_override, range};
use crate::vocab::{AnswerForm, Evaluator, Labeller, SolverReward};

/// Keys of a domain that name files of its folder.
const FILES: [&str; 4] = ["challenger_prompt", "solver_prompt", "verifier_prompt", "anchors"];

/// A profile with what its domain's folder says of the keys that it leaves out; nothing where it leaves nothing to a folder.
pub(crate) fn with_domain(
    text: &str,
    overrides: &[String],
    read: impl FnOnce(&str) -> Result<String, String>,
) -> Result<Option<toml::Table>, ProfileError> {
    // A text that is no profile is told of by who reads it as one.
    let Ok(mut table) = text.parse::<toml::Table>() else { return Ok(None) };
    for setting in overrides.iter().filter(|setting| setting.trim_start().starts_with("domain.folder")) {
        apply_override(&mut table, setting)?;
    }
    let Some(toml::Value::Table(domain)) = table.get_mut("domain") else { return Ok(None) };
    let folder = domain.get("folder").and_then(toml::Value::as_str).unwrap_or_default().trim_end_matches('/').to_owned();
    if folder.is_empty() || domain.contains_key("questions") {
        return Ok(None);
    }
    let refuse = |problem: String| ProfileError::Domain { folder: folder.clone(), problem };
    let told: toml::Table = read(&folder).map_err(refuse)?.parse().map_err(|error: toml::de::Error| refuse(error.to_string()))?;
    for (key, mut value) in told {
        if let (true, toml::Value::String(path)) = (FILES.contains(&key.as_str()), &mut value)
            && !path.is_empty()
        {
            path.insert_str(0, &format!("{folder}/"));
        }
        domain.entry(key).or_insert(value);
    }
    Ok(Some(table))
}

impl DomainSettings {
    pub(crate) fn check(&self, profile: &Profile) -> Result<(), ProfileError> {
        let has_anchors = !self.anchors.is_empty();
        let share = profile.stability.anchor_share;
        range("stability.anchor_share", share, |share| has_anchors || share == 0.0, "0 without domain.anchors")?;
        let shown = profile.stability.anchors_shown;
        range("stability.anchors_shown", shown, |shown| has_anchors || shown == 0, "0 without domain.anchors")?;
        let is_known = self.evaluator != Evaluator::None;
        let labeller = profile.curriculum.labeller;
        range(
            "curriculum.labeller",
            labeller,
            |labeller| labeller != Labeller::Executor || is_known,
            "another, or domain.evaluator set",
        )?;
        if self.answers == AnswerForm::Rubric {
            range("roles", profile.roles, |roles| roles == 3, "3 where domain.answers is rubric: nobody else can judge")?;
            let reward = profile.solver.reward;
            range("solver.reward", reward, |reward| reward == SolverReward::Verdict, "verdict where domain.answers is rubric")?;
        }
        Ok(())
    }
}
