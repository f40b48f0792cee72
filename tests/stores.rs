//! Runs in an object store: the bytes of a run in a folder, whoever is killed and whichever machine is lost; of two writers one counts.
//!
//! The store is a folder by its file:// URL, or the one that RZERO_TEST_STORE names, as `just test-stores` does with a server that speaks S3.

use crate::just::just;
use crate::whole_run::{assert_same_files, finish, lasting_files};
use rzero_io::error::IoError;
use rzero_io::layout::RunLayout;
use rzero_io::objects::{Objects, connect};
use rzero_io::set::StageOutput;
use rzero_io::store::RunStore;
use rzero_schema::ids::Place;
use rzero_schema::tables::CurriculumRow;
use rzero_schema::vocab::{Phase, Stage};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

/// A run in the store under test, with a folder for what machines mirror of it.
struct Run {
    url: String,
    folder: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = std::env::var("RZERO_TEST_STORE").unwrap_or_else(|_| format!("file://{}/store", folder.path().display()));
        let unique = folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        Self { url: format!("{store}/{unique}/run"), folder }
    }

    /// `just` as it is typed on a machine of this name, which has a mirror of its own.
    fn just(&self, machine: &str) -> Command {
        let mut command = just();
        command.arg("profile=smoke").arg(format!("run={}", self.url)).arg("threads=2");
        command.env("RZERO_MIRRORS", self.folder.path().join(machine)).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn run(&self, machine: &str, recipe: &[&str]) {
        let mut command = self.just(machine);
        command.args(recipe);
        finish(command);
    }

    fn objects(&self) -> Box<dyn Objects> {
        connect(&self.url, std::env::vars()).unwrap()
    }

    /// All of the store, as a folder.
    fn copy(&self) -> PathBuf {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        copy_below(&*self.objects(), "", &target);
        target
    }

    fn layout(&self, machine: &str) -> RunLayout {
        let mirror = self.folder.path().join(machine);
        RunLayout::of_store(&mirror, RunStore::new(&self.url, &mirror, self.objects()))
    }
}

fn copy_below(objects: &dyn Objects, folder: &str, target: &Path) {
    let listing = objects.list(folder).unwrap();
    let join = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    for name in listing.objects {
        let path = target.join(join(&name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(objects.fetch(&join(&name), &mut std::fs::File::create(path).unwrap()).unwrap());
    }
    listing.folders.iter().for_each(|name| copy_below(objects, &join(name), target));
}

/// The files of an iteration in a folder.
fn expected() -> &'static std::collections::BTreeMap<PathBuf, Vec<u8>> {
    static EXPECTED: OnceLock<std::collections::BTreeMap<PathBuf, Vec<u8>>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let mut command = just();
        command.arg("profile=smoke").arg(format!("run={}", run.display())).args(["threads=2", "loop", "1"]).stdout(Stdio::null());
        finish(command);
        lasting_files(&run)
    })
}

#[test]
fn an_iteration_in_a_store_leaves_the_bytes_of_one_in_a_folder() {
    let run = Run::new();
    run.run("one", &["loop", "1"]);
    assert_same_files(&lasting_files(&run.copy()), expected(), "a store and a folder");

    // Nothing is left to do on a machine that has seen nothing of it, and it can tell of it.
    let manifests = |run: &Run| {
        let place = Place::new(1, Phase::Solver, 2);
        StageOutput::open(&run.layout("two"), Stage::GrpoStep, place).unwrap().manifests().to_vec()
    };
    let before = manifests(&run);
    run.run("two", &["loop", "1"]);
    assert_eq!(manifests(&run), before);
    let mut summary = run.just("three");
    let output = summary.arg("summary").stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.starts_with(&format!("{}: profile smoke", run.url)), "{text}");

    // The products that a stage prints are named where they lie.
    let output = run.just("three").args(["filter", "1"]).stdout(Stdio::piped()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed.trim(), format!("{}/iter-001/curriculum/filter/manifest-00000-of-00001.json", run.url));
}

#[test]
fn a_shared_gradient_in_a_store_leaves_the_bytes_of_one_process_and_no_parts() {
    let run = Run::new();
    let mut command = run.just("one");
    command.args(["gradients=2", "loop", "1"]);
    finish(command);
    assert_same_files(&lasting_files(&run.copy()), expected(), "a shared gradient in a store");
}

#[test]
fn a_run_in_a_store_killed_on_machines_that_are_lost_ends_with_the_same_bytes() {
    let run = Run::new();
    let seed = u64::from(std::process::id());
    let (mut state, mut num_killed) = (seed, 0);
    for machine in 0..8 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Every second one comes back as it was.
        let mut child = run.just(&format!("lost-{}", machine / 2)).args(["loop", "1"]).process_group(0).spawn().unwrap();
        sleep(Duration::from_millis(50 + (state >> 33) % 450));
        let is_sent = Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status().unwrap().success();
        num_killed += u32::from(is_sent && !child.wait().unwrap().success());
    }
    assert!(num_killed >= 2, "seed {seed}: only {num_killed} runs were still at work when they were killed");
    run.run("last", &["loop", "1"]);
    assert_same_files(&lasting_files(&run.copy()), expected(), &format!("killed by seed {seed}"));
}

#[test]
fn two_writers_race_for_one_shard_of_a_store_and_one_manifest_tells_of_it() {
    let run = Run::new();
    let steps = [
        vec!["challenge-gen", "1", "curriculum"],
        vec!["solve-sample", "1", "curriculum"],
        vec!["vote-label", "1", "curriculum"],
        vec!["filter", "1"],
    ];
    run.run("first", &["challenger-phase", "1"]);
    for step in &steps {
        // Both begin with nothing, at once.
        let both: Vec<_> = ["left", "right"].map(|machine| run.just(machine).args(step).spawn().unwrap()).into();
        for writer in both {
            let output = writer.wait_with_output().unwrap();
            assert!(output.status.success(), "{step:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let output = StageOutput::open(&run.layout("reader"), Stage::Filter, Place::new(1, Phase::Curriculum, 0)).unwrap();
    assert_eq!(output.manifests().len(), 1);
    output.verify_digests().unwrap();
    assert!(!output.read::<CurriculumRow>().unwrap().is_empty());
}

#[test]
fn of_two_runs_that_race_for_one_url_of_a_store_one_is_refused() {
    let run = Run::new();
    let race = |seed: u32| {
        run.just(&format!("seed-{seed}"))
            .args([&format!("set=seed={seed}"), "challenge-gen", "1", "challenger", "1"])
            .spawn()
            .unwrap()
    };
    let both = [race(1), race(2)].map(|writer| writer.wait_with_output().unwrap());
    let mut codes = both.iter().map(|output| output.status.code()).collect::<Vec<_>>();
    codes.sort_unstable();
    let told = both.iter().map(|output| String::from_utf8_lossy(&output.stderr)).collect::<String>();
    assert_eq!(codes, [Some(0), Some(4)], "{told}");
    assert!(told.contains(&format!("{} holds a run of profile `smoke`", run.url)) && told.contains("seed"), "{told}");
}

#[test]
fn a_file_of_many_parts_goes_into_a_store_whole_or_not_at_all() {
    let run = Run::new();
    let objects = run.objects();
    let path = run.folder.path().join("weights");
    for num_bytes in [0, 1, 8 << 20, (8 << 20) + 1, 50_000_000] {
        let bytes: Vec<u8> = (0..num_bytes).map(|at: usize| (at / 3 + at / 7919) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let digest = blake3::hash(&bytes).to_hex().to_string();
        let name = format!("a/b-{num_bytes}");
        let error = objects.send(&path, &name, "other").unwrap_err();
        assert!(matches!(error, IoError::DigestDiffers { .. }), "{error}");
        assert_eq!(objects.size(&name).unwrap(), None);
        objects.send(&path, &name, &digest).unwrap();
        assert_eq!(objects.size(&name).unwrap(), Some(num_bytes as u64));
        let mut found = Vec::new();
        assert!(objects.fetch(&name, &mut found).unwrap() && found == bytes, "{num_bytes} bytes");
    }
    assert_eq!(objects.list("a").unwrap().objects.len(), 5);
    let (bytes, version) = objects.read("a/b-1").unwrap().unwrap();
    assert!(!objects.create("a/b-1", b"taken").unwrap() && objects.create("a/new", b"free").unwrap());
    assert!(objects.replace("a/b-1", b"next", &version).unwrap());
    if run.url.starts_with("s3:") {
        // A folder cannot be asked which version it replaces.
        assert!(!objects.replace("a/b-1", b"late", &version).unwrap());
    }
    assert_eq!((bytes.len(), objects.read("a/b-1").unwrap().unwrap().0), (1, b"next".to_vec()));
    objects.remove("a/b-1").unwrap();
    objects.remove("a/b-1").unwrap();
    assert_eq!(objects.read("a/b-1").unwrap(), None);
}

#[test]
fn what_a_store_lacks_or_refuses_is_told_with_its_url() {
    let run = Run::new();
    let told = |command: &mut Command, code: i32, words: &[&str]| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "`{word}` is not in: {text}"));
    };
    let folder = format!("{}/iter-001/curriculum/challenge-gen", run.url);
    told(
        run.just("one").args(["solve-sample", "1", "curriculum"]),
        3,
        &[&folder, &format!("run: challenge-gen --run {}", run.url)],
    );
    let mut command = just();
    told(command.args(["profile=smoke", "run=s3://bucket/../x", "filter", "1"]), 2, &["s3://bucket/../x", "s3://BUCKET/RUN"]);
    told(run.just("one").args(["slurm", "loop", "1"]), 2, &[&run.url, "folder that all nodes see"]);
    told(run.just("one").arg("clean-run"), 2, &[&run.url, "store's own tool"]);
    // Nobody listens there.
    let mut away = just();
    away.args(["profile=smoke", "run=s3://bucket/run", "challenge-gen", "1", "challenger", "1"]);
    away.envs([
        ("AWS_ENDPOINT", "http://127.0.0.1:9"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "r"),
        ("AWS_ACCESS_KEY_ID", "k"),
    ]);
    away.env("AWS_SECRET_ACCESS_KEY", "k").env("RZERO_MIRRORS", run.folder.path());
    told(&mut away, 75, &["s3://bucket/run", "once the store answers"]);
}
