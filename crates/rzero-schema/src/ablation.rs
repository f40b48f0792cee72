//! `pipelines/ablations/NAME.toml`: a matrix of settings and seeds, each cell of which is a run.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A matrix of cells and seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ablation {
    /// What is asked, in a sentence.
    pub title: String,
    /// Name of the profile that every cell begins from.
    pub profile: String,
    /// Iterations of each run.
    pub iterations: u32,
    /// Seed of each run of a cell; equal seeds are compared with one another.
    pub seeds: Vec<u64>,
    /// The cells. All are compared with the first.
    #[serde(rename = "cell")]
    pub cells: Vec<Cell>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Its name, a part of its folders.
    pub name: String,
    /// Keys of the profile that it replaces, as KEY=VALUE; `{seed}` in one stands for the run's seed.
    #[serde(default)]
    pub set: Vec<String>,
    /// Where the idea comes from.
    pub source: String,
}

/// Why a file is no matrix.
#[derive(Debug, thiserror::Error)]
pub enum AblationError {
    /// Not TOML, or a key is missing, unknown or of another type.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// Something that it must have is not there, or there twice.
    #[error("{0}")]
    Matrix(String),
}

impl Ablation {
    /// Reads a matrix.
    ///
    /// # Errors
    /// When the text is none, or a cell has no name of its own that a folder can have.
    pub fn from_toml(text: &str) -> Result<Self, AblationError> {
        let ablation: Self = toml::from_str(text)?;
        let fail = |what: String| Err(AblationError::Matrix(what));
        if ablation.cells.is_empty() || ablation.seeds.is_empty() || ablation.iterations == 0 {
            return fail("a matrix has at least one cell, one seed and one iteration".to_owned());
        }
        let mut names = BTreeSet::new();
        for cell in &ablation.cells {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if cell.name.is_empty() || cell.name.starts_with('.') || !cell.name.chars().all(is_plain) {
                return fail(format!("cell name `{}` is not made of letters, digits, - and .", cell.name));
            }
            if !names.insert(&cell.name) {
                return fail(format!("cell `{}` stands twice", cell.name));
            }
            // It is typed as one text whose parts are split by semicolons.
            if let Some(setting) = cell.set.iter().find(|setting| setting.contains(';') || setting.contains('\t')) {
                return fail(format!("cell `{}`: `{setting}` holds a semicolon or a tab", cell.name));
            }
        }
        let seeds: BTreeSet<&u64> = ablation.seeds.iter().collect();
        if seeds.len() < ablation.seeds.len() {
            return fail("a seed stands twice".to_owned());
        }
        Ok(ablation)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    const HEAD: &str = "title = \"t\"\nprofile = \"tiny\"\niterations = 2\nseeds = [1, 2]\n";

    #[test]
    fn what_is_no_matrix_is_told() {
        let with = |cells: &str| Ablation::from_toml(&format!("{HEAD}{cells}"));
        let good = "[[cell]]\nname = \"default\"\nsource = \"ours\"\n";
        assert_eq!(with(good).unwrap().cells[0].set, Vec::<String>::new());
        for (bad, words) in [
            ("", "missing field `cell`"),
            (&*format!("{good}{good}"), "stands twice"),
            ("[[cell]]\nname = \"../up\"\nsource = \"\"\n", "not made of"),
            ("[[cell]]\nname = \"a\"\nsource = \"\"\nset = [\"a=1;b=2\"]\n", "semicolon"),
            ("[[cell]]\nname = \"a\"\nsource = \"\"\nwhat = 1\n", "unknown field"),
        ] {
            let error = with(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(Ablation::from_toml(&HEAD.replace("[1, 2]", "[1, 1]").replace("= 2\n", "= 2\ncell = []\n")).is_err());
    }
}
