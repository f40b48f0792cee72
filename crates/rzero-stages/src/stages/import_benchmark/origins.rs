//! Where benchmarks are published, and under what licence. A problem that names its source has the licence and revision of that place.

use super::adapters::Problem;

/// A place where a benchmark is published.
pub(super) struct Origin {
    /// What the source of a problem holds that comes from here: a repository, or a package with its version.
    pub(super) place: &'static str,
    /// Licence, as the place states it.
    pub(super) license: &'static str,
    /// Commit or version whose file is known; empty where none is.
    pub(super) revision: &'static str,
}

const fn origin(place: &'static str, license: &'static str, revision: &'static str) -> Origin {
    Origin { place, license, revision }
}

const MATH_RULER: &str = "14dadeb0e962ff707aba889c85979155d25245ce";
const QWEN_MATH: &str = "a45202bd16f1ec06f433442dc1152d0074773465";

pub(super) const GSM8K: &[Origin] =
    &[origin("openai/grade-school-math", "MIT", "3101c7d5072418e28b9008a6636bde82a006892c"), origin("openai/gsm8k", "MIT", "")];
pub(super) const MATH500: &[Origin] =
    &[origin("openai/prm800k", "MIT", ""), origin("hiyouga/MathRuler", "MIT; the copy: Apache-2.0", MATH_RULER)];
pub(super) const MINERVA_MATH: &[Origin] = &[origin("QwenLM/Qwen2.5-Math", "MIT; problems of MIT OCW: CC-BY-NC-SA", QWEN_MATH)];
pub(super) const OLYMPIADBENCH: &[Origin] =
    &[origin("OpenBMB/OlympiadBench", "MIT", ""), origin("QwenLM/Qwen2.5-Math", "MIT", QWEN_MATH)];
pub(super) const AMC23: &[Origin] = &[origin("QwenLM/Qwen2.5-Math", "MIT; problems (c) MAA", QWEN_MATH)];
pub(super) const AIME24: &[Origin] = &[origin("hiyouga/MathRuler", "Apache-2.0; problems (c) MAA", MATH_RULER)];
pub(super) const AIME25: &[Origin] = &[origin("hiyouga/MathRuler", "Apache-2.0; problems (c) MAA", MATH_RULER)];
pub(super) const MMLU_PRO: &[Origin] = &[
    origin("TIGER-Lab/MMLU-Pro", "MIT", ""),
    origin("TIGER-AI-Lab/MMLU-Pro", "Apache-2.0", "f418b116db00b065c2aea046518d8fcf74d39872"),
];
pub(super) const SUPERGPQA: &[Origin] = &[
    origin("m-a-p/SuperGPQA", "ODC-BY", ""),
    origin("Zhuofeng-Li/math-evaluation-harness", "ODC-BY; the copy: MIT", "a0448031ca940fa85ebc55a461a047874ea5ac5f"),
];
pub(super) const BBEH: &[Origin] =
    &[origin("google-deepmind/bbeh", "CC-BY-4.0; code: Apache-2.0", "80d12ca916b7158f22293fcf3144f4d3d854d4be")];
pub(super) const SVAMP: &[Origin] = &[origin("arkilpatel/SVAMP", "MIT", "689d7ccac74b9983a2ac7cc3b264f441b99e7c53")];
pub(super) const BIGBENCH_ARITHMETIC: &[Origin] =
    &[origin("google/BIG-bench", "Apache-2.0", ""), origin("bigbench==1.0.0", "Apache-2.0", "1.0.0")];
pub(super) const REASONING_GYM: &[Origin] =
    &[origin("open-thought/reasoning-gym", "Apache-2.0", ""), origin("reasoning_gym==0.1.25", "Apache-2.0", "0.1.25")];

/// What is known of where a problem comes from, or was said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Provenance {
    pub(super) source: Option<String>,
    pub(super) license: Option<String>,
    pub(super) revision: Option<String>,
}

/// Source, licence and revision of a problem: what was said of its file, what its row says, what its place is known for. A row without a
/// source has that of the benchmark itself, but no revision: nothing says of which one the file is a copy.
pub(super) fn provenance(problem: &Problem, origins: &[Origin], said: &Provenance, file_name: &str) -> [String; 3] {
    let named = said.source.clone().or_else(|| problem.source.clone());
    let known = match &named {
        Some(source) => origins.iter().find(|origin| is_from(source, origin.place)),
        None => origins.first(),
    };
    let source = named.clone().unwrap_or_else(|| match known {
        Some(origin) => format!("{} ({file_name})", origin.place),
        None => file_name.to_owned(),
    });
    let license = said.license.clone().or_else(|| problem.license.clone());
    let license = license.unwrap_or_else(|| known.map_or_else(String::new, |origin| origin.license.to_owned()));
    let revision = said.revision.clone().or_else(|| problem.revision.clone());
    let of_place = known.filter(|_| named.is_some()).map_or("", |origin| origin.revision);
    [source, license, revision.unwrap_or_else(|| of_place.to_owned())]
}

/// Whether a source names a place, and not one whose name is longer.
fn is_from(source: &str, place: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/');
    source.match_indices(place).any(|(start, _)| {
        !source[..start].ends_with(is_part)
            && !source[start + place.len()..].starts_with(|letter| is_part(letter) && letter != '/')
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_licence_of_the_place_that_it_names() {
        let of = |source: Option<&str>, said: &Provenance| {
            let problem = Problem {
                id: None,
                question: String::new(),
                options: Vec::new(),
                answer: String::new(),
                subject: None,
                level: 1,
                source: source.map(str::to_owned),
                license: None,
                revision: None,
            };
            provenance(&problem, GSM8K, said, "gsm8k.jsonl")
        };
        let nothing = Provenance::default();
        let [source, license, revision] = of(Some("openai/grade-school-math:data/test.jsonl"), &nothing);
        assert_eq!((source.as_str(), license.as_str()), ("openai/grade-school-math:data/test.jsonl", "MIT"));
        assert_eq!(revision, GSM8K[0].revision);
        assert_eq!(of(Some("me/openai/gsm8k-2"), &nothing), ["me/openai/gsm8k-2", "", ""]);
        assert_eq!(of(None, &nothing), ["openai/grade-school-math (gsm8k.jsonl)", "MIT", ""]);
        let said = Provenance { license: Some("own".to_owned()), revision: Some("v2".to_owned()), source: None };
        assert_eq!(of(Some("openai/gsm8k"), &said), ["openai/gsm8k", "own", "v2"]);
        let fetched =
            Provenance { source: Some("openai/gsm8k:main/test.parquet".to_owned()), revision: said.revision, license: None };
        assert_eq!(of(Some("a row's own"), &fetched), ["openai/gsm8k:main/test.parquet", "MIT", "v2"]);
        assert!(is_from("PyPI bigbench==1.0.0:task.json", "bigbench==1.0.0") && !is_from("bigbench==1.0.01", "bigbench==1.0.0"));
    }
}
