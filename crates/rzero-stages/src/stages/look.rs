//! `look`: what a table is, what it holds, and what its rows look like to a person.
//!
//! Of a run it takes all parts that manifests list; of a file, that file alone. Rows are streamed: what is held is a few figures a column.

mod columns;

use crate::console::{Verbosity, print_product, start_log};
use crate::context::project_root;
use crate::exit::StageFailure;
use crate::markdown::new_table;
use crate::run_dir::MirrorArgs;
use crate::run_record::no_run;
use crate::tables::for_table;
use columns::Figures;
use comfy_table::CellAlignment;
use rzero_io::layout::shard_of_manifest;
use rzero_io::manifest::read_manifest;
use rzero_io::reader::{read_footer, stream_table};
use rzero_model::tokenizer::Tokenizer;
use rzero_schema::table::Table;
use rzero_schema::tables::{TableDescription, all_tables};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Rows that are read at a time.
const BATCH_ROWS: usize = 8192;

/// Show a table of a run, or a file: columns with what they mean, figures, and some rows.
#[derive(Debug, clap::Parser)]
#[command(name = "look", version)]
pub struct Args {
    /// Name of a table, such as labels, or a Parquet file of this project
    #[arg(value_name = "TABLE")]
    table: PathBuf,

    /// Run directory, or its URL in an object store
    #[arg(long, env = "RZERO_RUN", value_name = "DIR")]
    run: Option<PathBuf>,

    #[command(flatten)]
    mirrors: MirrorArgs,

    /// How many rows are shown, the last of the run
    #[arg(long, value_name = "N", default_value_t = 3)]
    rows: usize,

    /// One JSON object instead of text
    #[arg(long)]
    json: bool,

    /// Folder that the profile's paths are relative to; left out, the nearest folder upwards that holds `justfile` and `pipelines`
    #[arg(long, env = "RZERO_ROOT", value_name = "DIR")]
    project_root: Option<PathBuf>,
}

/// A part of the table, and the tokenizer by which its tokens are read.
struct Part {
    path: PathBuf,
    tokenizer: Option<PathBuf>,
}

/// What was seen of a table.
#[derive(Default)]
struct Seen {
    num_rows: u64,
    figures: Vec<Figures>,
    /// The last rows, as JSON, tokens decoded.
    rows: Vec<Map<String, Value>>,
}

/// Shows it.
///
/// # Errors
/// When there is no such table: exit code 2. When the run has none of it, or a file is damaged: 3.
pub fn run(args: &Args) -> anyhow::Result<()> {
    start_log(Verbosity::Normal);
    let is_file = args.table.extension().is_some_and(|extension| extension == "parquet") || args.table.is_file();
    let named = args.table.to_string_lossy().into_owned();
    let (name, parts) = if is_file { of_file(&args.table)? } else { (named.clone(), of_run(args, &named)?) };
    let Some(description) = all_tables().into_iter().find(|description| description.name == name) else {
        let names = all_tables().iter().map(|description| description.name).collect::<Vec<_>>().join(", ");
        return Err(StageFailure::usage(format!("there is no table `{name}`"))
            .hint(format!("choose one of {names}, or name a file"))
            .into());
    };
    if parts.is_empty() {
        let message = format!("the run has no table {name} yet");
        return Err(StageFailure::input(message).hint("`just sql` lists the tables that are there").into());
    }
    let mut seen = Seen { figures: description.columns.iter().map(|_| Figures::default()).collect(), ..Seen::default() };
    for part in &parts {
        for_table!(name.as_str(), add(part, args.rows, &mut seen)).unwrap_or(Ok(()))?;
    }
    if args.json {
        print_product(object(&description, parts.len(), &seen));
    } else {
        print_product(text(&description, parts.len(), &seen));
    }
    Ok(())
}

fn of_file(path: &Path) -> anyhow::Result<(String, Vec<Part>)> {
    let footer = read_footer(path)?;
    let Some(name) = footer.get("rzero.table") else {
        let message = format!("{} was written by no stage of this project", path.display());
        return Err(StageFailure::input(message).hint("any reader of Parquet shows it").into());
    };
    Ok((name.clone(), vec![Part { path: path.to_owned(), tokenizer: None }]))
}

/// The parts of a run's table that manifests list, in the order of their names.
fn of_run(args: &Args, table: &str) -> anyhow::Result<Vec<Part>> {
    let Some(run) = &args.run else {
        return Err(StageFailure::usage("a table is one of a run")
            .hint("name the run with --run or RZERO_RUN, or give a file")
            .into());
    };
    let layout = args.mirrors.layout_of(run)?;
    layout.refresh_all_manifests()?;
    layout.refresh_run_record()?;
    if !layout.run_record().is_file() {
        return Err(no_run(run).into());
    }
    let root = project_root(args.project_root.as_deref()).unwrap_or_default();
    let mut names = layout.names()?;
    names.retain(|name| shard_of_manifest(name.rsplit('/').next().unwrap_or_default()).is_some());
    names.sort_unstable();
    let mut parts = Vec::new();
    for name in names {
        let manifest = read_manifest(&layout.absolute(&name))?;
        let file = manifest.inputs.iter().find(|record| record.path.ends_with("/tokenizer.json"));
        let tokenizer = file.and_then(|record| {
            let places = [layout.absolute(&record.path), root.join(&record.path)];
            places.into_iter().find(|path| path.is_file())
        });
        for record in manifest.outputs.iter().filter(|record| record.table.as_deref() == Some(table)) {
            parts.push(Part { path: layout.bring(record)?, tokenizer: tokenizer.clone() });
        }
    }
    Ok(parts)
}

/// Adds a part's rows.
fn add<T: Table>(part: &Part, num_shown: usize, seen: &mut Seen) -> anyhow::Result<()> {
    let mut last = None;
    for rows in stream_table::<T>(&part.path, BATCH_ROWS)? {
        let batch = T::to_batch(&rows?);
        seen.num_rows += batch.num_rows() as u64;
        seen.figures.iter_mut().zip(batch.columns()).for_each(|(figures, column)| figures.add(column));
        last = Some(batch).filter(|batch| batch.num_rows() > 0).or(last);
    }
    let Some(batch) = last else { return Ok(()) };
    let tokenizer = part.tokenizer.as_deref().and_then(Path::parent).and_then(|folder| Tokenizer::read(folder).ok());
    let first = batch.num_rows().saturating_sub(num_shown);
    let shown = batch.slice(first, batch.num_rows() - first);
    let names: Vec<&str> = T::columns().iter().map(|column| column.name).collect();
    seen.rows.extend((0..shown.num_rows()).map(|row| {
        let cell = |(name, column): (&&str, &arrow::array::ArrayRef)| {
            ((*name).to_owned(), columns::cell(name, column, row, tokenizer.as_ref()))
        };
        names.iter().zip(shown.columns()).map(cell).collect::<Map<String, Value>>()
    }));
    let surplus = seen.rows.len().saturating_sub(num_shown);
    seen.rows.drain(..surplus);
    Ok(())
}

fn object(description: &TableDescription, num_files: usize, seen: &Seen) -> Value {
    let column = |(column, figures): (&rzero_schema::table::Column, &Figures)| {
        let type_name = column.data_type.to_string();
        json!({ "name": column.name, "type": type_name, "nullable": column.is_nullable, "doc": column.doc, "figures": figures.json() })
    };
    json!({
        "table": description.name,
        "version": description.version,
        "doc": description.doc,
        "key": description.key,
        "files": num_files,
        "num_rows": seen.num_rows,
        "columns": description.columns.iter().zip(&seen.figures).map(column).collect::<Vec<_>>(),
        "rows": seen.rows,
    })
}

fn text(description: &TableDescription, num_files: usize, seen: &Seen) -> String {
    let TableDescription { name, version, key, doc, columns } = description;
    let mut lines =
        vec![format!("{name}, version {version}, named by {}: {} rows in {num_files} files", key.join(", "), seen.num_rows)];
    lines.push(doc.clone());
    let mut table = new_table(&["column", "type", "null", "what it holds", "what it means"]);
    table.column_iter_mut().for_each(|column| {
        column.set_cell_alignment(CellAlignment::Left);
    });
    for (column, figures) in columns.iter().zip(&seen.figures) {
        let null = if column.is_nullable { "yes" } else { "no" };
        table.add_row([column.name, &column.data_type.to_string(), null, &figures.text(), &column.doc]);
    }
    lines.push(format!("\n{table}"));
    let width = columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
    for (at, row) in seen.rows.iter().enumerate() {
        lines.push(format!("\nrow {} of {}", seen.num_rows - (seen.rows.len() - at) as u64 + 1, seen.num_rows));
        lines.extend(row.iter().map(|(name, value)| format!("  {name:<width$}  {}", columns::shown(value))));
    }
    lines.join("\n")
}
