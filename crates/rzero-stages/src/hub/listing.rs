//! What a repository holds, as the hub tells it, and which of it a model folder needs. The hub's answer is foreign text.

use crate::exit::StageFailure;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Files beside the weights.
const OTHER_FILES: [&str; 5] =
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

const INDEX_FILE: &str = "model.safetensors.index.json";

/// Largest file that is no weights, bytes.
pub(crate) const MAX_SMALL_BYTES: u64 = 1 << 27;

/// Largest file of weights, bytes: no hub keeps larger ones.
const MAX_LARGE_BYTES: u64 = 1 << 41;

/// A commit and its files.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) commit: String,
    files: BTreeMap<String, RemoteFile>,
}

/// A file as it was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    pub(crate) name: String,
    pub(crate) num_bytes: Option<u64>,
    /// sha256, hexadecimal, of files that the hub keeps as large ones.
    pub(crate) sha256: Option<String>,
}

impl RemoteFile {
    /// More bytes than this are never taken.
    pub(crate) fn max_bytes(&self) -> u64 {
        if self.name.ends_with(".safetensors") { MAX_LARGE_BYTES } else { MAX_SMALL_BYTES }
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

#[derive(Debug, Deserialize)]
struct LargeFile {
    sha256: Option<String>,
    size: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Listing {
    /// Reads the hub's answer.
    pub(crate) fn from_json(text: &str, revision: &str) -> anyhow::Result<Self> {
        let answer: Answer =
            serde_json::from_str(text).map_err(|error| broken(format!("the hub's listing cannot be read: {error}")))?;
        if !is_commit(&answer.sha) || (is_commit(revision) && answer.sha != revision) {
            return Err(broken(format!("the hub calls revision {revision} commit {:?}", shortened(&answer.sha))));
        }
        let mut files = BTreeMap::new();
        for Sibling { rfilename: name, size, lfs } in answer.siblings {
            if !is_inside(&name) {
                return Err(broken(format!("the listing names a file outside its folder: {:?}", shortened(&name))));
            }
            let (sha256, large_size) = lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
            if sha256.as_deref().is_some_and(|digest| !is_sha256(digest)) {
                return Err(broken(format!("the listing gives {:?} a digest that is no sha256", shortened(&name))));
            }
            files.insert(name.clone(), RemoteFile { name, num_bytes: large_size.or(size), sha256 });
        }
        Ok(Self { commit: answer.sha, files })
    }

    /// A file by its path in the repository.
    pub(crate) fn file(&self, name: &str) -> anyhow::Result<&RemoteFile> {
        let lacking = || {
            let holds: Vec<&str> = self.files.keys().map(String::as_str).filter(|name| !name.starts_with('.')).take(12).collect();
            StageFailure::usage(format!("the repository has no file `{}` at commit {}", shortened(name), self.commit))
                .hint(format!("name one that it has: {}", shortened(&holds.join(", "))))
        };
        self.files.get(name).ok_or_else(|| lacking().into()).and_then(within_bounds)
    }

    /// The index of weights that are cut into several files.
    pub(crate) fn index(&self) -> anyhow::Result<Option<&RemoteFile>> {
        self.files.get(INDEX_FILE).map(within_bounds).transpose()
    }

    /// What a model folder needs. Of several sets of weights one is taken: the files that the index names, else model.safetensors,
    /// else every .safetensors file.
    pub(crate) fn model_files(&self, index: Option<&str>) -> anyhow::Result<Vec<RemoteFile>> {
        let mut names: Vec<&str> = OTHER_FILES.iter().copied().filter(|name| self.files.contains_key(*name)).collect();
        for needed in ["config.json", "tokenizer.json"] {
            if !names.contains(&needed) {
                return Err(lacking(needed));
            }
        }
        let index: Option<Index> = index
            .map(serde_json::from_str)
            .transpose()
            .map_err(|error| broken(format!("{INDEX_FILE} is no index of weights: {error}")))?;
        let mut weights: Vec<&str> = match &index {
            Some(index) => index.weight_map.values().map(String::as_str).collect(),
            None if self.files.contains_key("model.safetensors") => vec!["model.safetensors"],
            None => self
                .files
                .keys()
                .map(String::as_str)
                .filter(|name| name.ends_with(".safetensors") && !name.contains('/'))
                .collect(),
        };
        weights.sort_unstable();
        weights.dedup();
        if weights.is_empty() {
            return Err(lacking("weights (*.safetensors)"));
        }
        if index.is_some() {
            names.push(INDEX_FILE);
        }
        if let Some(odd) = weights.iter().find(|name| !is_model_file(name) || !name.ends_with(".safetensors")) {
            return Err(broken(format!("weights are in a file of an unusual name: {:?}", shortened(odd))));
        }
        names.extend(weights);
        names.into_iter().map(|name| self.files.get(name).ok_or_else(|| lacking(name)).and_then(within_bounds).cloned()).collect()
    }
}

/// Whether a name is one that this program gives to files of a model folder: plain, at the top, of a known kind.
pub(crate) fn is_model_file(name: &str) -> bool {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let is_weights = name.ends_with(".safetensors") && name.len() <= 200;
    is_plain && !name.starts_with('.') && (is_weights || name == INDEX_FILE || OTHER_FILES.contains(&name))
}

/// Whether a text is a whole commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_lower_hex(text)
}

/// Whether a text is a sha256.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && is_lower_hex(text)
}

/// Refuses what can be no repository or revision, before it becomes a part of an address.
pub(crate) fn check_repository(repository: &str, revision: &str) -> anyhow::Result<()> {
    let is_name = |part: &str| {
        let is_plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        !part.is_empty() && is_plain && !part.starts_with('.') && !part.contains("..")
    };
    let parts: Vec<&str> = repository.split('/').collect();
    if parts.len() > 2 || repository.len() > 200 || !parts.iter().all(|part| is_name(part)) {
        let message = format!("`{repository}` is no repository");
        return Err(StageFailure::usage(message).hint("name it as OWNER/NAME, such as Qwen/Qwen3-0.6B").into());
    }
    if revision.len() > 200 || !revision.split('/').all(is_name) {
        let message = format!("`{revision}` is no revision");
        return Err(StageFailure::usage(message).hint("name a commit, a tag or a branch, such as main").into());
    }
    Ok(())
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether a name stays below the folder it is joined to.
pub(crate) fn is_inside(name: &str) -> bool {
    let is_odd = |part: &str| part.is_empty() || part == "." || part == "..";
    !name.contains(['\\', '\0', ':']) && !name.split('/').any(is_odd)
}

fn within_bounds(file: &RemoteFile) -> anyhow::Result<&RemoteFile> {
    match file.num_bytes {
        Some(num_bytes) if num_bytes > file.max_bytes() => {
            Err(broken(format!("{} is announced with {num_bytes} bytes, at most {} are taken", file.name, file.max_bytes())))
        }
        _ => Ok(file),
    }
}

/// A part of a foreign text that can be shown.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn lacking(what: &str) -> anyhow::Error {
    StageFailure::input(format!("the repository has no {what}"))
        .hint("choose a repository with config.json, tokenizer.json and weights as safetensors; many models have such a copy")
        .into()
}

fn broken(message: String) -> anyhow::Error {
    StageFailure::input(message).hint("nothing was written; check HF_ENDPOINT, or choose another repository").into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use serde_json::json;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn listing(names: &[&str]) -> anyhow::Result<Listing> {
        let siblings: Vec<_> = names.iter().map(|name| json!({"rfilename": name, "size": 5})).collect();
        Listing::from_json(&json!({"sha": COMMIT, "siblings": siblings, "likes": 3}).to_string(), "main")
    }

    fn chosen(names: &[&str], index: Option<&str>) -> Vec<String> {
        let files = listing(names).unwrap().model_files(index).unwrap();
        files.into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn one_set_of_weights_and_the_files_beside_it_are_chosen() {
        let both = ["config.json", "tokenizer.json"];
        let with = |names: &[&'static str]| [&both[..], names].concat();
        let many = with(&["model.safetensors", "adapter.safetensors", "README.md", "onnx/model.onnx", "chat_template.jinja"]);
        assert_eq!(chosen(&many, None), ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]);
        assert_eq!(
            chosen(&with(&["b.safetensors", "a.safetensors", "x/c.safetensors"]), None)[2..],
            ["a.safetensors", "b.safetensors"]
        );
        let index =
            json!({"metadata": {}, "weight_map": {"w": "m-2.safetensors", "v": "m-1.safetensors", "u": "m-2.safetensors"}});
        let cut = with(&["m-1.safetensors", "m-2.safetensors", "consolidated.safetensors", INDEX_FILE]);
        assert_eq!(chosen(&cut, Some(&index.to_string()))[2..], [INDEX_FILE, "m-1.safetensors", "m-2.safetensors"]);
        for (names, index) in [
            (vec!["config.json", "m.safetensors"], None),
            (both.to_vec(), None),
            (cut.clone(), Some(r#"{"weight_map": {"w": "../m.safetensors"}}"#)),
            (cut.clone(), Some(r#"{"weight_map": {"w": "m-3.safetensors"}}"#)),
            (cut.clone(), Some(r#"{"weight_map": {"w": "config.json"}}"#)),
            (cut.clone(), Some(r#"{"weight_map": {}}"#)),
            (cut.clone(), Some("[]")),
        ] {
            assert!(listing(&names).unwrap().model_files(index).is_err(), "{names:?} {index:?}");
        }
    }

    #[test]
    fn a_hostile_listing_is_refused() {
        for name in ["../config.json", "/etc/x", "a/../../b", "a\\..\\b", "C:x", "a//b", "", "./a", "a\0"] {
            assert!(listing(&["config.json", name]).is_err(), "{name:?}");
        }
        let parse = |value: serde_json::Value, revision: &str| Listing::from_json(&value.to_string(), revision);
        assert!(parse(json!({"sha": "main", "siblings": []}), "main").is_err());
        assert!(parse(json!({"sha": COMMIT, "siblings": []}), &COMMIT.replace('0', "1")).is_err());
        let large = |sha256: &str, size: u64| {
            json!({"sha": COMMIT, "siblings": [
            {"rfilename": "config.json", "size": 2}, {"rfilename": "tokenizer.json", "size": 2},
            {"rfilename": "model.safetensors", "size": 130, "lfs": {"sha256": sha256, "size": size, "pointerSize": 130}}]})
        };
        let file = parse(large(&"a".repeat(64), 9), "main").unwrap().model_files(None).unwrap().pop().unwrap();
        assert_eq!((file.num_bytes, file.sha256), (Some(9), Some("a".repeat(64))));
        assert!(parse(large("../../etc", 9), "main").is_err());
        assert!(parse(large(&"a".repeat(64), u64::MAX), "main").unwrap().model_files(None).is_err());
        for (repository, revision) in
            [("a/b/c", "main"), ("../b", "main"), ("a b", "main"), ("", "main"), ("a/b", "../x"), ("a/b", "x?y")]
        {
            assert!(check_repository(repository, revision).is_err(), "{repository} {revision}");
        }
        check_repository("Qwen/Qwen3-0.6B", "refs/pr/1").unwrap();
    }
}
