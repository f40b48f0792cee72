//! Laws of a run in a store, held against one in memory that fails where it is told to.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod support;

use rzero_io::atomic::digest_file;
use rzero_io::error::{Blame, IoError};
use rzero_io::layout::{RunLayout, Shard};
use rzero_io::objects::{Listing, Objects, Version};
use rzero_io::set::StageOutput;
use rzero_io::store::RunStore;
use rzero_schema::manifest::Manifest;
use rzero_schema::tables::Label;
use rzero_schema::vocab::Stage;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};
use support::{PLACE, rows, write_shard};

const URL: &str = "s3://bucket/run";

type Contents = BTreeMap<String, (Vec<u8>, u64)>;

/// A store in memory. Each content has a number, as its version.
#[derive(Debug, Clone, Default)]
struct Memory {
    objects: Arc<Mutex<Contents>>,
    /// Calls until one fails, and how it does; none where it does not.
    calls_left: Arc<Mutex<Option<u32>>>,
}

impl Memory {
    fn call(&self, name: &str) -> Result<(), IoError> {
        match &mut *self.calls_left.lock().unwrap() {
            Some(0) => Err(IoError::StoreFailed { url: name.to_owned(), problem: "is away".to_owned() }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let mut objects = self.objects.lock().unwrap();
        let version = objects.values().map(|(_, version)| version + 1).max().unwrap_or(0);
        objects.insert(name.to_owned(), (bytes.to_vec(), version));
    }

    fn get(&self, name: &str) -> Option<(Vec<u8>, u64)> {
        self.objects.lock().unwrap().get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }
}

impl Objects for Memory {
    fn list(&self, folder: &str) -> Result<Listing, IoError> {
        self.call(folder)?;
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut listing = Listing::default();
        for name in self.names() {
            match name.strip_prefix(&prefix).map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
                Some((name, "")) => listing.objects.push(name.to_owned()),
                Some((name, _)) => listing.folders.push(name.to_owned()),
                None => {}
            }
        }
        listing.folders.dedup();
        Ok(listing)
    }

    fn read(&self, name: &str) -> Result<Option<(Vec<u8>, Version)>, IoError> {
        self.call(name)?;
        let version = |number: u64| Version { e_tag: Some(number.to_string()), version: None };
        Ok(self.get(name).map(|(bytes, number)| (bytes, version(number))))
    }

    fn fetch(&self, name: &str, target: &mut dyn Write) -> Result<bool, IoError> {
        self.call(name)?;
        Ok(self.get(name).map(|(bytes, _)| target.write_all(&bytes).unwrap()).is_some())
    }

    fn size(&self, name: &str) -> Result<Option<u64>, IoError> {
        self.call(name)?;
        Ok(self.get(name).map(|(bytes, _)| bytes.len() as u64))
    }

    fn send(&self, from: &Path, name: &str, digest: &str) -> Result<(), IoError> {
        self.call(name)?;
        let actual = digest_file(from)?.digest;
        if actual != digest {
            return Err(IoError::DigestDiffers { path: from.to_owned(), expected: digest.to_owned(), actual });
        }
        self.put(name, &std::fs::read(from).unwrap());
        Ok(())
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, IoError> {
        self.call(name)?;
        let mut objects = self.objects.lock().unwrap();
        let version = objects.values().map(|(_, version)| version + 1).max().unwrap_or(0);
        let is_free = !objects.contains_key(name);
        objects.entry(name.to_owned()).or_insert_with(|| (bytes.to_vec(), version));
        Ok(is_free)
    }

    fn replace(&self, name: &str, bytes: &[u8], version: &Version) -> Result<bool, IoError> {
        self.call(name)?;
        let is_it = self.get(name).is_some_and(|(_, number)| version.e_tag == Some(number.to_string()));
        if is_it {
            self.put(name, bytes);
        }
        Ok(is_it)
    }

    fn remove(&self, name: &str) -> Result<(), IoError> {
        self.call(name)?;
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }
}

/// A machine with a mirror of its own.
struct Machine {
    _folder: tempfile::TempDir,
    layout: RunLayout,
}

impl Machine {
    fn new(memory: &Memory) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = RunStore::new(URL, folder.path(), Box::new(memory.clone()));
        let layout = RunLayout::of_store(folder.path(), store);
        Self { _folder: folder, layout }
    }

    /// Does the work of a shard, whose bytes depend on `seed`, as they do on a device whose sums depend on chance.
    fn write(&self, shard: Shard, seed: u64, change: impl FnOnce(&mut Manifest)) {
        write_shard(&self.layout, shard, &rows(3 + shard.index as usize, seed), change);
    }

    fn publish(&self, shard: Shard) -> Result<(), IoError> {
        self.layout.publish_shard(Stage::VoteLabel, PLACE, shard)
    }

    fn open(&self) -> Result<StageOutput, IoError> {
        StageOutput::open(&self.layout, Stage::VoteLabel, PLACE)
    }

    fn name(&self, path: &Path) -> String {
        self.layout.relative(path).unwrap()
    }

    fn part(&self) -> std::path::PathBuf {
        self.layout.part(Stage::VoteLabel, PLACE, "labels", Shard::WHOLE)
    }
}

#[test]
fn what_one_machine_publishes_another_reads() {
    let memory = Memory::default();
    let shards = [0, 1, 2].map(|index| Shard { index, num: 3 });
    for shard in shards {
        let writer = Machine::new(&memory);
        writer.write(shard, u64::from(shard.index), |_| {});
        // Whole on the machine and not yet published, it does not exist.
        assert!(!matches!(writer.open(), Ok(output) if output.manifests().len() > shard.index as usize));
        writer.publish(shard).unwrap();
    }
    let reader = Machine::new(&memory);
    let output = reader.open().unwrap();
    let expected: Vec<Label> = (0..3).flat_map(|index| rows::<Label>(3 + index, index as u64)).collect();
    assert_eq!(output.read::<Label>().unwrap(), expected);
    assert_eq!(reader.layout.iterations().unwrap(), [PLACE.iteration]);
    assert_eq!(output.scan::<Label>(&["challenge_id"]).unwrap().iter().map(rzero_io::scan::Piece::num_rows).sum::<u64>(), 12);
    let streamed: Vec<Label> =
        Machine::new(&memory).open().unwrap().stream::<Label>(2).unwrap().flat_map(|batch| batch.unwrap()).collect();
    assert_eq!(streamed, expected);
}

#[test]
fn errors_name_the_url() {
    let error = Machine::new(&Memory::default()).open().unwrap_err();
    assert_eq!(error.to_string(), "s3://bucket/run/iter-001/curriculum/vote-label holds no finished output of vote-label");
    assert_eq!(error.hint().unwrap(), "run: vote-label --run s3://bucket/run --iteration 1 --phase curriculum");
}

#[test]
fn wherever_a_store_fails_nothing_half_done_is_seen_and_the_same_call_ends_it() {
    let expected = rows::<Label>(3, 1);
    let mut num_failures = 0;
    for calls in 0.. {
        let memory = Memory::default();
        let writer = Machine::new(&memory);
        writer.write(Shard::WHOLE, 1, |_| {});
        *memory.calls_left.lock().unwrap() = Some(calls);
        let published = writer.publish(Shard::WHOLE);
        *memory.calls_left.lock().unwrap() = None;
        match (Machine::new(&memory).open(), &published) {
            (Ok(output), Ok(())) => assert_eq!(output.read::<Label>().unwrap(), expected),
            (Err(IoError::NoOutput { .. }), Err(error)) => assert_eq!(error.blame(), Blame::Passing),
            (seen, published) => panic!("after {calls} calls: {published:?}, and {seen:?} is seen"),
        }
        writer.publish(Shard::WHOLE).unwrap();
        assert_eq!(Machine::new(&memory).open().unwrap().read::<Label>().unwrap(), expected);
        if published.is_ok() {
            break;
        }
        num_failures += 1;
    }
    assert!(num_failures >= 3, "{num_failures}");
}

#[test]
fn of_two_that_write_a_shard_at_once_the_manifest_tells_of_what_lies_there() {
    for round in 0..40 {
        let memory = Memory::default();
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for seed in [2 * round, 2 * round + 1] {
                let (memory, start) = (&memory, &start);
                scope.spawn(move || {
                    let writer = Machine::new(memory);
                    writer.write(Shard::WHOLE, seed, |_| {});
                    start.wait();
                    writer.publish(Shard::WHOLE).unwrap();
                });
            }
        });
        Machine::new(&memory).open().unwrap().verify_digests().unwrap();
        assert_eq!(memory.names().len(), 2);
    }
}

#[test]
fn of_two_that_write_a_shard_from_different_inputs_exactly_one_succeeds() {
    for _ in 0..20 {
        let memory = Memory::default();
        let start = Barrier::new(2);
        let results: Vec<_> = std::thread::scope(|scope| {
            let spawn = |seed: u64| {
                let (memory, start) = (&memory, &start);
                scope.spawn(move || {
                    let writer = Machine::new(memory);
                    writer.write(Shard::WHOLE, 1, |manifest| manifest.seed = seed);
                    start.wait();
                    writer.publish(Shard::WHOLE)
                })
            };
            [1, 2].map(spawn).into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let refused: Vec<&IoError> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(refused.len(), 1, "{results:?}");
        assert_eq!(refused[0].blame(), Blame::Conflict);
        assert!(refused[0].to_string().contains(URL), "{}", refused[0]);
    }
}

#[test]
fn a_file_is_brought_once_and_again_where_the_mirror_has_other_bytes() {
    let memory = Memory::default();
    let writer = Machine::new(&memory);
    writer.write(Shard::WHOLE, 1, |_| {});
    writer.publish(Shard::WHOLE).unwrap();
    let reader = Machine::new(&memory);
    let expected = reader.open().unwrap().read::<Label>().unwrap();
    std::fs::write(reader.part(), b"damaged").unwrap();
    assert_eq!(reader.open().unwrap().read::<Label>().unwrap(), expected);

    let output = reader.open().unwrap();
    *memory.calls_left.lock().unwrap() = Some(0);
    assert_eq!(output.read::<Label>().unwrap(), expected, "what is here is not asked for again");
    *memory.calls_left.lock().unwrap() = None;

    memory.put(&reader.name(&reader.part()), b"damaged");
    let error = Machine::new(&memory).open().unwrap().read::<Label>().unwrap_err();
    assert!(matches!(error, IoError::DigestDiffers { .. }) && error.to_string().contains(URL), "{error}");
    memory.remove(&reader.name(&reader.part())).unwrap();
    let error = Machine::new(&memory).open().unwrap().read::<Label>().unwrap_err();
    assert!(matches!(error, IoError::MissingFile { .. }) && error.to_string().contains(URL), "{error}");
}

#[test]
fn a_forged_manifest_leads_to_no_file_outside_the_run() {
    for path in ["../outside", "/etc/hostname", "iter-001/../../outside", "a//b", ""] {
        let memory = Memory::default();
        let writer = Machine::new(&memory);
        writer.write(Shard::WHOLE, 1, |manifest| manifest.outputs[0].path = path.to_owned());
        assert!(matches!(writer.publish(Shard::WHOLE), Err(IoError::Record { .. })), "{path}");
        // One that is in the store all the same.
        let manifest = writer.layout.manifest(Stage::VoteLabel, PLACE, Shard::WHOLE);
        memory.put(&writer.name(&manifest), &std::fs::read(&manifest).unwrap());
        memory.put(path, b"bytes");
        let error = Machine::new(&memory).open().unwrap().read::<Label>().unwrap_err();
        assert!(matches!(error, IoError::Record { .. }), "{path}: {error}");
    }
}

#[test]
fn what_is_removed_is_gone_from_the_store_first() {
    let memory = Memory::default();
    let writer = Machine::new(&memory);
    writer.write(Shard::WHOLE, 1, |_| {});
    writer.publish(Shard::WHOLE).unwrap();
    let folder = writer.layout.stage_folder(Stage::VoteLabel, PLACE);
    *memory.calls_left.lock().unwrap() = Some(0);
    assert!(writer.layout.remove_folder(&folder).is_err());
    assert!(writer.part().exists());
    *memory.calls_left.lock().unwrap() = None;
    writer.layout.remove_folder(&folder).unwrap();
    assert!(memory.names().is_empty() && !folder.exists());
    writer.layout.remove_folder(&folder).unwrap();
}
