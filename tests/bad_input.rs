//! Everything that can be wrong with what a stage is given, in one list: tables, manifests, records, profiles, prompts, models, places.
//!
//! Whatever it is, the binary ends with the exit code that the README documents, names the file or the flag, says what to do, does not panic, and
//! leaves every other file as it was.

use crate::audit::{Run, whole};
use rzero_io::atomic::digest_file;
use rzero_schema::table::Table;
use rzero_schema::tables::Label;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LABELS: &str = "iter-001/curriculum/vote-label/labels-00000-of-00002.parquet";
const CURRICULUM: &str = "iter-001/curriculum/filter/curriculum-00000-of-00001.parquet";
const VOTE_MANIFEST: &str = "iter-001/curriculum/vote-label/manifest-00000-of-00002.json";
const FILTER_MANIFEST: &str = "iter-001/curriculum/filter/manifest-00000-of-00001.json";

/// A stage of this build, on a run, in the project's folder.
fn stage(binary: &str, run: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command.env("RZERO_RUN", run).env("RZERO_PROFILE", "pipelines/profiles/smoke.toml").env("RZERO_SET", "seed=7");
    command.env("RZERO_THREADS", "1").env_remove("RUST_LOG");
    command
}

const AT_CURRICULUM: [&str; 4] = ["--iteration", "1", "--phase", "curriculum"];

fn filter(run: &Path) -> Command {
    let mut command = stage(env!("CARGO_BIN_EXE_filter"), run);
    command.args(AT_CURRICULUM);
    command
}

fn solve_sample(run: &Path) -> Command {
    let mut command = stage(env!("CARGO_BIN_EXE_solve-sample"), run);
    command.args(["--iteration", "1", "--phase", "solver", "--step", "1"]);
    command
}

fn reader(binary: &str, run: &Path, flags: &[&OsStr]) -> Command {
    let mut command = stage(binary, run);
    command.env_remove("RZERO_RUN").env_remove("RZERO_PROFILE").env_remove("RZERO_SET").arg(run).args(flags);
    command
}

/// Everything under a folder by name, with its digest.
fn census(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let digest = digest_file(&path).unwrap().digest;
                found.insert(path, digest);
            }
        }
    }
    found
}

/// Runs a command that must fail in the documented way, and leave what lies under `folder` as it was.
fn fails(what: &str, mut command: Command, exit: i32, named: &str, folder: &Path) {
    let before = census(folder);
    let output = command.output().unwrap();
    let text = told(&output);
    let what = format!("{what}: {}: {text}", command.get_program().to_string_lossy().rsplit('/').next().unwrap());
    assert_eq!(output.status.code(), Some(exit), "{what}");
    assert!(text.contains(named), "{named:?} is not named: {what}");
    assert!(text.contains("hint: ") || text.contains("what to do"), "nothing says what to do: {what}");
    assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{what}");
    let mut after = census(folder);
    // A run begins when its first stage does, whatever becomes of the stage.
    after.retain(|path, _| before.contains_key(path) || !path.ends_with("run.json"));
    assert!(after == before, "other files have changed: {what}");
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + String::from_utf8_lossy(&output.stdout).as_ref()
}

/// What can be wrong with a table, as its bytes.
fn bad_tables() -> Vec<(&'static str, Vec<u8>)> {
    let good = std::fs::read(whole(7, 2).join(LABELS)).unwrap();
    let foreign = std::fs::read(whole(7, 2).join("iter-001/eval/eval/eval_results-00000-of-00002.parquet")).unwrap();
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = good.clone();
        let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
        assert!(!places.is_empty(), "{from} stands nowhere");
        places.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to.as_bytes()));
        bytes
    };
    let zeroed = |from: usize, to: usize| {
        let mut bytes = good.clone();
        bytes[from..to].fill(0);
        bytes
    };
    let end = good.len();
    vec![
        ("an empty file", Vec::new()),
        ("one byte", good[..1].to_vec()),
        ("half of it", good[..end / 2].to_vec()),
        ("all but its last byte", good[..end - 1].to_vec()),
        ("twice itself", [good.clone(), good.clone()[..end - 4].to_vec()].concat()),
        ("text", b"challenge_id,row\nq1,0\n".to_vec()),
        ("zeros", vec![0; end]),
        ("another table", foreign),
        ("a column of another name", replaced("vote_share", "vote_shame")),
        ("zeros for data", zeroed(4, end / 4)),
        ("zeros for the footer", zeroed(end - 200, end - 8)),
        ("a footer longer than the file", {
            let mut bytes = good.clone();
            bytes[end - 8..end - 4].copy_from_slice(&u32::MAX.to_le_bytes());
            bytes
        }),
    ]
}

#[test]
fn a_table_that_is_not_as_its_manifest_says_is_told_by_every_stage_that_reads_it() {
    for (what, bytes) in bad_tables() {
        let run = Run::new();
        run.write(LABELS, &bytes);
        // Whoever reads a whole run.
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("report.html");
        let report = reader(env!("CARGO_BIN_EXE_report"), run.layout.root(), &[OsStr::new("--out"), file.as_os_str()]);
        fails(what, report, 3, LABELS, run.layout.root());
        assert!(!file.exists(), "{what}: a report was written");
        let mut explain = stage(env!("CARGO_BIN_EXE_explain"), run.layout.root());
        explain.arg("--random");
        // One question needs few of the bytes.
        if what != "zeros for data" {
            fails(what, explain, 3, LABELS, run.layout.root());
        }
        run.remove("iter-001/curriculum/filter");
        fails(what, filter(run.layout.root()), 3, LABELS, run.layout.root());
    }
}

#[test]
fn a_table_that_is_wrong_and_whose_manifest_agrees_is_told_as_well() {
    for (what, bytes) in bad_tables() {
        let run = Run::new();
        run.write(LABELS, &bytes);
        run.repair(LABELS);
        run.remove("iter-001/curriculum/filter");
        fails(what, filter(run.layout.root()), 3, LABELS, run.layout.root());
        let file = run.path(LABELS);
        if what == "another table" {
            // Which is a good one, for whoever has not been told what it should be.
            continue;
        }
        fails(what, reader(env!("CARGO_BIN_EXE_look"), &file, &[]), 3, LABELS, run.layout.root());
    }
}

#[test]
fn a_table_of_another_version_is_told_with_both_versions() {
    let run = Run::new();
    run.edit(LABELS, |bytes| {
        let key = b"rzero.version";
        let at = (0..bytes.len()).find(|at| bytes[*at..].starts_with(key)).unwrap() + key.len();
        // The type of a text, its length, and the text.
        assert_eq!(bytes[at..at + 3], *format!("\u{18}\u{1}{}", Label::VERSION).as_bytes());
        bytes[at + 2] = b'9';
    });
    run.repair(LABELS);
    run.remove("iter-001/curriculum/filter");
    fails("a table of version 9", filter(run.layout.root()), 3, LABELS, run.layout.root());
    let text = told(&filter(run.layout.root()).output().unwrap());
    assert!(text.contains(&format!("version {}", Label::VERSION)) && text.contains('9'), "{text}");
}

#[test]
fn a_table_that_is_gone_or_is_a_folder_is_told() {
    for what in ["gone", "a folder"] {
        let run = Run::new();
        run.remove(LABELS);
        if what == "a folder" {
            std::fs::create_dir(run.path(LABELS)).unwrap();
        }
        run.remove("iter-001/curriculum/filter");
        fails(what, filter(run.layout.root()), 3, LABELS, run.layout.root());
    }
}

#[test]
fn a_broken_manifest_is_told_by_name() {
    let good = std::fs::read(whole(7, 2).join(VOTE_MANIFEST)).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("an empty file", Vec::new()),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("zeros", vec![0; good.len()]),
        ("no JSON", b"manifest".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a number out of its range", text.replacen("\"num_shards\": 2", "\"num_shards\": -2", 1).into_bytes()),
        ("another version", text.replacen("\"manifest_version\": 2", "\"manifest_version\": 9", 1).into_bytes()),
        ("an unknown member", text.replacen('{', "{\"surprise\": 1,", 1).into_bytes()),
        ("bytes that are no UTF-8", [b"{\"stage\": \"\xff\xfe\"".as_slice(), &good[1..]].concat()),
        ("deep nesting", vec![b'['; 100_000]),
        ("that of another stage", std::fs::read(whole(7, 2).join(FILTER_MANIFEST)).unwrap()),
        ("that of another shard", std::fs::read(whole(7, 2).join(VOTE_MANIFEST.replace("00000-of", "00001-of"))).unwrap()),
    ];
    for (what, bytes) in bad {
        assert!(bytes != good, "{what}");
        let run = Run::new();
        run.write(VOTE_MANIFEST, &bytes);
        run.remove("iter-001/curriculum/filter");
        fails(what, filter(run.layout.root()), 3, VOTE_MANIFEST, run.layout.root());
        fails(what, reader(env!("CARGO_BIN_EXE_audit"), run.layout.root(), &[]), 6, VOTE_MANIFEST, run.layout.root());
    }
}

#[test]
fn a_broken_run_record_is_told_by_name() {
    let good = std::fs::read(whole(7, 2).join("run.json")).unwrap();
    let edited = String::from_utf8(good.clone()).unwrap().replacen("\"num_samples\": ", "\"num_samples\": 1", 1);
    for (what, bytes) in [
        ("an empty file", Vec::new()),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("no JSON", b"profile".to_vec()),
        ("an edited profile", edited.into_bytes()),
    ] {
        let run = Run::new();
        run.write("run.json", &bytes);
        let root = run.layout.root();
        run.remove("iter-001/curriculum/filter");
        fails(what, filter(root), 3, "run.json", root);
        fails(what, reader(env!("CARGO_BIN_EXE_summary"), root, &[]), 3, "run.json", root);
        fails(what, reader(env!("CARGO_BIN_EXE_audit"), root, &[]), 6, "run.json", root);
    }
}

#[test]
fn a_curriculum_that_is_wrong_stops_the_training_that_needs_it() {
    for (what, bytes) in bad_tables() {
        let run = Run::new();
        run.write(CURRICULUM, &bytes);
        run.repair(CURRICULUM);
        run.remove("iter-001/solver");
        fails(what, solve_sample(run.layout.root()), 3, CURRICULUM, run.layout.root());
    }
}

#[test]
fn a_broken_profile_is_told_by_name_or_key() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/profiles/smoke.toml")).unwrap();
    let profile = folder.path().join("my.toml");
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let with = |bytes: &[u8]| std::fs::write(&profile, bytes).unwrap();
    let command = |set: &str| {
        let mut command = stage(env!("CARGO_BIN_EXE_eval"), &run);
        command.args(["--iteration", "0", "--phase", "eval"]).env("RZERO_PROFILE", &profile).env("RZERO_SET", set);
        command
    };
    fails("no file", command(""), 2, "my.toml", folder.path());
    for (what, bytes, named) in [
        ("an empty file", b"".to_vec(), "my.toml"),
        ("no TOML", b"name = ".to_vec(), "my.toml"),
        ("bytes that are no UTF-8", b"name = \"\xff\"".to_vec(), "my.toml"),
        ("an unknown key", format!("surprise = 1\n{good}").into_bytes(), "surprise"),
        ("a key twice", format!("seed = 1\n{good}").into_bytes(), "seed"),
        ("half of it", good.as_bytes()[..good.len() / 2].to_vec(), "my.toml"),
    ] {
        with(&bytes);
        fails(what, command(""), 2, named, folder.path());
    }
    with(good.as_bytes());
    for (set, named) in [
        ("surprise=1", "surprise"),
        ("seed", "seed"),
        ("seed=-1", "seed"),
        ("seed=1e400", "seed"),
        ("curriculum.num_samples=0", "num_samples"),
        ("solver.grpo.learning_rate=nan", "learning_rate"),
        ("domain.solver_prompt=no-such.jinja", "no-such.jinja"),
        ("model.path=/nowhere/at/all", "/nowhere/at/all"),
    ] {
        // A file that is not there is an input that is incomplete.
        let exit = if named.contains("no") { 3 } else { 2 };
        fails(set, command(set), exit, named, folder.path());
    }
}

#[test]
fn a_broken_model_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/models/tiny"));
    for (file, bytes) in [
        ("config.json", b"{}".to_vec()),
        ("config.json", b"\xff".to_vec()),
        ("tokenizer.json", b"{\"model\":".to_vec()),
        ("model.safetensors", Vec::new()),
        ("model.safetensors", std::fs::read(tiny.join("model.safetensors")).unwrap()[..1000].to_vec()),
        ("model.safetensors", vec![0xff; 4096]),
    ] {
        let model = folder.path().join("model");
        std::fs::create_dir_all(&model).unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            std::fs::copy(tiny.join(name), model.join(name)).unwrap();
        }
        std::fs::write(model.join(file), bytes).unwrap();
        let run = folder.path().join("run");
        std::fs::create_dir_all(&run).unwrap();
        let mut command = stage(env!("CARGO_BIN_EXE_eval"), &run);
        command.args(["--iteration", "0", "--phase", "eval"]).env("RZERO_SET", format!("model.path={}", model.display()));
        fails(file, command, 3, file, folder.path());
    }
}

#[test]
fn a_path_that_is_no_text_is_used_or_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(OsStr::from_bytes(b"r\xffn"));
    // Where a stage writes, manifests name what it wrote: that must be text only below the run.
    let mut command = stage(env!("CARGO_BIN_EXE_eval"), &odd);
    let output = command.args(["--iteration", "0", "--phase", "eval"]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    for binary in [env!("CARGO_BIN_EXE_summary"), env!("CARGO_BIN_EXE_audit")] {
        let output = reader(binary, &odd, &[]).output().unwrap();
        assert!(output.status.success(), "{binary}: {}", told(&output));
    }
    let report = odd.join(OsStr::from_bytes(b"\xfe.html"));
    let output = reader(env!("CARGO_BIN_EXE_report"), &odd, &[OsStr::new("--out"), report.as_os_str()]).output().unwrap();
    assert!(output.status.success() && report.is_file(), "{}", told(&output));

    let mut command = filter(&odd);
    command.env("RZERO_PROFILE", OsStr::from_bytes(b"pro\xfffile.toml"));
    fails("a profile", command, 2, "pro\u{fffd}file.toml", folder.path());
    let mut command = filter(&odd);
    command.env("RZERO_SET", OsStr::from_bytes(b"seed=\xff"));
    let output = command.output().unwrap();
    assert!(output.status.code() == Some(2) && told(&output).contains("UTF-8"), "{}", told(&output));
    let file = odd.join(OsStr::from_bytes(b"no\xfe.parquet"));
    fails("a table", reader(env!("CARGO_BIN_EXE_look"), &file, &[]), 3, "no\u{fffd}.parquet", folder.path());
}

/// Runs a script in which `$DISK` is a disk of its own, of so many kilobytes, with `$RUN` on it as a copy of a run of which `taken` was taken away.
/// None where this machine lets nobody mount anything, which is no reason to fail but where CI says that it should be tried.
fn on_disk(kilobytes: u32, taken: &str, script: &str) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let unshare = |flags: &str, script: &str| {
        let mut command = Command::new("unshare");
        command.args([flags, "bash", "-euc", script]).env("DISK", folder.path()).env("FROM", whole(7, 1)).env("TAKEN", taken);
        command.env("RUN", folder.path().join("run")).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        command.env("RZERO_PROFILE", "pipelines/profiles/smoke.toml").env("RZERO_SET", "seed=7").env("RZERO_THREADS", "1");
        command.env("RZERO_RUN", folder.path().join("run"));
        command.output().ok()
    };
    let mount = format!("mount -t tmpfs -o size={kilobytes}k tmpfs \"$DISK\"");
    let flags = ["-m", "-rm"].into_iter().find(|flags| unshare(flags, &mount).is_some_and(|output| output.status.success()));
    assert!(flags.is_some() || std::env::var_os("CI").is_none(), "nothing can be mounted here");
    let flags = flags?;
    unshare(flags, &format!("{mount}; cp -r \"$FROM\" \"$RUN\"; rm -r \"$RUN/$TAKEN\"; {script}"))
}

#[test]
fn a_full_disk_is_told_and_what_was_there_stays() {
    let folder = "iter-001/curriculum/solve-sample";
    let stage = format!("{} --iteration 1 --phase curriculum", env!("CARGO_BIN_EXE_solve-sample"));
    // A file takes what is left but for a page; then the stage runs, on a full disk and again when there is room.
    let script = format!(
        "cd \"$DISK\"; head -c 1G /dev/zero > filler 2>/dev/null || true; truncate -s -8192 filler; cd - >/dev/null
         before=$(cd \"$RUN\"; find . -type f ! -name '*.journal*' -exec sha256sum {{}} + | sort)
         set +e; {stage} 2>\"/dev/fd/1\"; echo \"code $?\"; set -e
         after=$(cd \"$RUN\"; find . -type f ! -name '*.journal*' -exec sha256sum {{}} + | sort)
         [[ $before == \"$after\" ]] && echo unchanged || diff <(echo \"$before\") <(echo \"$after\")
         rm \"$DISK/filler\"; {stage} 2>/dev/null; {} \"$RUN\" >/dev/null && echo believed",
        env!("CARGO_BIN_EXE_audit")
    );
    let Some(output) = on_disk(64 * 1024, folder, &script) else { return };
    let text = told(&output);
    for words in ["code 1\n", "No space left on device", folder, "hint: ", "unchanged", "believed"] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_disk_that_can_only_be_read_is_told_and_readers_do_not_mind() {
    let script = format!(
        "mount -o remount,ro \"$DISK\"
         set +e; {} --iteration 1 --phase curriculum 2>&1; echo \"code $?\"; set -e
         {} \"$RUN\" >/dev/null && {} --random >/dev/null && echo readers do not mind
         set +e; {} \"$RUN\" --out \"$DISK/r.html\" 2>&1; echo \"code $?\"",
        env!("CARGO_BIN_EXE_label-probe"),
        env!("CARGO_BIN_EXE_summary"),
        env!("CARGO_BIN_EXE_explain"),
        env!("CARGO_BIN_EXE_report"),
    );
    let Some(output) = on_disk(64 * 1024, "iter-001/curriculum/label-probe", &script) else {
        return;
    };
    let text = told(&output);
    for words in ["Read-only file system", "iter-001/curriculum/label-probe", "hint: ", "readers do not mind", "r.html"] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    assert_eq!(text.matches("code 1\n").count(), 2, "{text}");
    assert!(!text.contains("panicked"), "{text}");
}
