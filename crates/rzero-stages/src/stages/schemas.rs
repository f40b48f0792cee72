//! `export-schemas`: every table, the profile and the manifest as JSON in `schemas/`, generated from the Rust types; `--check` finds drift.

use crate::console::{Verbosity, print_product, start_log};
use crate::exit::StageFailure;
use rzero_io::atomic::write_bytes;
use rzero_io::error::IoError;
use rzero_io::manifest::to_json;
use rzero_schema::manifest::Manifest;
use rzero_schema::profile::Profile;
use rzero_schema::tables::{TableDescription, all_tables};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Write the schemas of all tables, of the profile and of the manifest.
#[derive(Debug, clap::Parser)]
#[command(name = "export-schemas", version)]
pub struct Args {
    /// Folder to write to
    #[arg(long, value_name = "DIR", default_value = "schemas")]
    folder: PathBuf,

    /// Write nothing; exit with 3 where the folder differs from what would be written
    #[arg(long)]
    check: bool,
}

/// Writes or checks the schemas.
///
/// # Errors
/// When a file cannot be written, or with `--check` differs.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let schemas = all_schemas();
    if args.check {
        return check(args, &schemas);
    }
    for (name, schema) in &schemas {
        let path = args.folder.join(name);
        write_bytes(&path, &to_json(schema))?;
        print_product(path.display());
    }
    Ok(())
}

/// Every schema with its file name.
#[must_use]
pub fn all_schemas() -> Vec<(String, Value)> {
    let mut schemas: Vec<(String, Value)> =
        all_tables().iter().map(|table| (format!("{}.json", table.name), table_schema(table))).collect();
    schemas.push(("profile.json".to_owned(), json!(schemars::schema_for!(Profile))));
    schemas.push(("manifest.json".to_owned(), json!(schemars::schema_for!(Manifest))));
    schemas
}

fn check(args: &Args, schemas: &[(String, Value)]) -> anyhow::Result<()> {
    let mut differing = Vec::new();
    for (name, schema) in schemas {
        let path = args.folder.join(name);
        match std::fs::read(&path) {
            Ok(bytes) if bytes == to_json(schema) => {}
            Ok(_) => differing.push(format!("{name} differs")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => differing.push(format!("{name} is missing")),
            Err(error) => return Err(IoError::file("read", &path)(error).into()),
        }
    }
    for entry in std::fs::read_dir(&args.folder).map_err(IoError::file("read", &args.folder))? {
        let name = entry.map_err(IoError::file("read", &args.folder))?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") && schemas.iter().all(|(known, _)| *known != name) {
            differing.push(format!("{name} belongs to no type"));
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    let message = format!("{} is not what the types say: {}", args.folder.display(), differing.join(", "));
    Err(StageFailure::input(message).hint("run: just schemas").into())
}

fn table_schema(table: &TableDescription) -> Value {
    let columns: Vec<Value> = table
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.data_type.to_string(),
                "nullable": column.is_nullable,
                "doc": column.doc,
            })
        })
        .collect();
    json!({ "table": table.name, "version": table.version, "doc": table.doc, "key": table.key, "columns": columns })
}
