//! `import-model`: a GGUF file to a model folder that this project and Hugging Face transformers open.
//!
//! Writes, in this order, import.json, tokenizer.json, tokenizer_config.json, generation_config.json, model.safetensors, import.json
//! once more, now with the digests of all of them, and config.json: a folder that has its config.json is whole. import.json tells
//! where the model comes from; it stands there first so that an import that was killed is known again and simply begun anew.

use crate::console::{Progress, Verbosity, print_product, start_log};
use crate::context::build;
use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use rzero_io::atomic::{AtomicFile, FileDigest, digest_file, remove_file, remove_stale_temporaries, write_bytes};
use rzero_io::error::IoError;
use rzero_model::gguf::Gguf;
use rzero_schema::manifest::Build;
use rzero_schema::vocab::FloatType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file whose presence makes a folder a model.
const CONFIG: &str = "config.json";
/// Where a model says where it comes from.
const RECORD: &str = "import.json";
/// A record longer than this is not one of ours.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// A name longer than this is not kept.
const MAX_TEXT_BYTES: usize = 1 << 12;

/// Turns a GGUF file into a model folder.
#[derive(Debug, clap::Parser)]
#[command(name = "import-model", version)]
pub struct Args {
    /// GGUF file to read: architecture llama, qwen2 or qwen3
    #[arg(long, value_name = "FILE")]
    gguf: PathBuf,
    /// Model folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// How the weights are stored
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    dtype: FloatType,
    /// Replace another model in the folder
    #[arg(long)]
    overwrite: bool,
}

/// import.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ImportRecord {
    /// Name of the GGUF file, without its folder.
    source: String,
    /// blake3 of it.
    source_digest: String,
    /// Its size.
    source_bytes: u64,
    /// Version of its format.
    gguf_version: u32,
    /// What the file says of itself, where it says it: `general.architecture`, `general.name` and the like.
    general: BTreeMap<String, String>,
    /// How many tensors were stored in which type.
    source_types: BTreeMap<String, u64>,
    /// Parameters of the model.
    num_parameters: u64,
    /// How the weights are stored in the folder.
    dtype: FloatType,
    /// What wrote the folder.
    build: Build,
    /// blake3 of each file of the folder but this one; empty while the import runs.
    files: BTreeMap<String, String>,
}

/// What is in the folder already.
enum Found {
    /// Nothing that would be replaced, or what an import of the same file left when it was killed.
    Free,
    /// The same model, whole.
    Same,
    /// Something else.
    Other(String),
}

/// Runs the stage.
///
/// # Errors
/// When the file cannot be used (exit code 3), the folder holds another model (4), or a file cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let interrupt = Interrupt::listen()?;
    let mut gguf = Gguf::open(&args.gguf)?;
    let source = digest_file(&args.gguf)?;
    let mut record = describe(args, &gguf, source);
    match look(&args.output, &record)? {
        Found::Same => {
            print_product(args.output.display());
            return Ok(());
        }
        Found::Other(what) if !args.overwrite => {
            return Err(StageFailure::conflict(format!("{} {what}", args.output.display()))
                .hint("name another folder with --output, or add --overwrite to replace it")
                .into());
        }
        Found::Free | Found::Other(_) => {}
    }
    // Tried before anything is replaced.
    let tokenizer = gguf.tokenizer_json()?;
    remove_stale_temporaries(&args.output)?;
    // From here to the end the folder is no model.
    remove_file(&args.output.join(CONFIG))?;
    write_record(&args.output, &record)?;
    let mut put = |name: &str, bytes: &[u8]| -> anyhow::Result<()> {
        let written = write_bytes(&args.output.join(name), bytes)?;
        record.files.insert(name.to_owned(), written.digest);
        Ok(())
    };
    put("tokenizer.json", tokenizer.as_bytes())?;
    put("tokenizer_config.json", &pretty(&gguf.tokenizer_config_json())?)?;
    put("generation_config.json", &pretty(&gguf.generation_config_json())?)?;
    let weights = write_weights(&mut gguf, &args.output.join("model.safetensors"), args.dtype, &interrupt)?;
    record.files.insert("model.safetensors".to_owned(), weights.digest);
    let config = pretty(&gguf.config_json(args.dtype))?;
    record.files.insert(CONFIG.to_owned(), blake3::hash(&config).to_hex().to_string());
    write_record(&args.output, &record)?;
    write_bytes(&args.output.join(CONFIG), &config)?;
    print_product(args.output.display());
    Ok(())
}

fn describe(args: &Args, gguf: &Gguf, source: FileDigest) -> ImportRecord {
    let keys = ["architecture", "name", "basename", "finetune", "size_label", "organization", "license"];
    let text = |key: &str| gguf.text(&format!("general.{key}")).filter(|text| text.len() <= MAX_TEXT_BYTES);
    let general = keys.iter().filter_map(|key| Some(((*key).to_owned(), text(key)?.to_owned()))).collect();
    ImportRecord {
        source: args.gguf.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        source_digest: source.digest,
        source_bytes: source.num_bytes,
        gguf_version: gguf.version(),
        general,
        source_types: gguf.type_counts(),
        num_parameters: gguf.num_parameters(),
        dtype: args.dtype,
        build: build(),
        files: BTreeMap::new(),
    }
}

/// What is in the folder, seen from what would be written there.
fn look(folder: &Path, record: &ImportRecord) -> anyhow::Result<Found> {
    let names = [CONFIG, RECORD, "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];
    let Some(taken) = names.iter().find(|name| folder.join(name).symlink_metadata().is_ok()) else {
        return Ok(Found::Free);
    };
    let Some(found) = read_record(&folder.join(RECORD)) else {
        return Ok(Found::Other(format!("holds a {taken} that no import of a GGUF file wrote")));
    };
    let is_same_source = found.source_digest == record.source_digest && found.dtype == record.dtype;
    if !is_same_source {
        let dtype = found.dtype.torch_name();
        return Ok(Found::Other(format!("holds a model imported from {} as {dtype}", found.source)));
    }
    let is_whole = folder.join(CONFIG).is_file() && !found.files.is_empty();
    let is_whole = is_whole && found.files.keys().all(|name| names.contains(&name.as_str()) && folder.join(name).is_file());
    Ok(if is_whole { Found::Same } else { Found::Free })
}

fn read_record(path: &Path) -> Option<ImportRecord> {
    let is_short = path.metadata().is_ok_and(|metadata| metadata.len() <= MAX_RECORD_BYTES);
    let text = is_short.then(|| std::fs::read(path).ok()).flatten()?;
    serde_json::from_slice(&text).ok()
}

fn write_record(folder: &Path, record: &ImportRecord) -> anyhow::Result<()> {
    write_bytes(&folder.join(RECORD), &pretty(&serde_json::to_value(record)?)?)?;
    Ok(())
}

fn write_weights(gguf: &mut Gguf, path: &Path, dtype: FloatType, interrupt: &Interrupt) -> anyhow::Result<FileDigest> {
    let bytes_each = if dtype == FloatType::F32 { 4 } else { 2 };
    let progress = Progress::start("writing the weights", gguf.num_parameters() * bytes_each, "bytes");
    let mut file = AtomicFile::create(path)?;
    gguf.write_safetensors(dtype, |bytes| -> anyhow::Result<()> {
        interrupt.check()?;
        file.write_all(bytes).map_err(IoError::file("write", path))?;
        progress.advance(bytes.len() as u64);
        Ok(())
    })?;
    Ok(file.finish()?)
}

/// JSON as a person reads it, with a final newline.
fn pretty(value: &serde_json::Value) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
