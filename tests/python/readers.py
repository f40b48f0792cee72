"""Every table of a run, and the dataset that is made of it, by the readers that people have: pyarrow, DuckDB, polars and datasets.

`readers.py RUN DATASET SCHEMAS`: types and nullability are those of the schemas, and all readers see the same rows. Nothing is fetched.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import datasets
import duckdb
import polars
import pyarrow
import pyarrow.parquet as parquet

ARROW = {
    "Utf8": pyarrow.string(), "Boolean": pyarrow.bool_(), "Int32": pyarrow.int32(), "UInt32": pyarrow.uint32(), "UInt64": pyarrow.uint64(),
    "Float32": pyarrow.float32(), "Float64": pyarrow.float64(),
}  # fmt: skip


def arrow_type(text: str) -> pyarrow.DataType:
    """The type that a schema writes as `UInt32` or `List(UInt32)`."""
    inner = text.removeprefix("List(").removesuffix(")").removeprefix("non-null ").split(",")[0].strip()
    return pyarrow.list_(ARROW[inner]) if text.startswith("List") else ARROW[text]


def is_same(found: pyarrow.DataType, expected: pyarrow.DataType) -> bool:
    """The same, whatever the items of a list are called."""
    if pyarrow.types.is_list(expected):
        return pyarrow.types.is_list(found) and found.value_type == expected.value_type
    return found == expected


def check_table(path: Path, schema: dict) -> int:
    table = parquet.read_table(path)
    columns = schema["columns"]
    assert table.column_names == [column["name"] for column in columns], (path, table.column_names)
    for column in columns:
        field = table.schema.field(column["name"])
        assert is_same(field.type, arrow_type(column["type"])), (path, field, column)
        assert field.nullable == column["nullable"], (path, field, column)
        if not column["nullable"]:
            assert table.column(column["name"]).null_count == 0, (path, column)
    rows = duckdb.sql(f"SELECT * FROM read_parquet('{path}')").to_arrow_table()
    frame = polars.read_parquet(path)
    assert rows.num_rows == len(frame) == table.num_rows, path
    assert rows.column_names == frame.columns == table.column_names, path
    assert frame.to_dicts() == table.to_pylist() == rows.to_pylist(), path
    loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(Path(sys.argv[2]).parent / "cache"))
    assert loaded.num_rows == table.num_rows and loaded.column_names == table.column_names, path
    assert loaded.to_list() == table.to_pylist(), path
    return table.num_rows


def check_queries(run: Path) -> int:
    """Every query of the README runs and finds something in this run, but where its question has no such rows."""
    root = Path(__file__).resolve().parents[2]
    block = re.search(r"```sql\n(.*?)```", (root / "README.md").read_text(), re.DOTALL).group(1)
    queries = [query.strip() for query in block.split(";") if query.strip()]
    for query in queries:
        told = subprocess.run([sys.executable, root / "pipelines/sql.py", run, query], capture_output=True, text=True)
        assert told.returncode == 0, (query, told.stderr)
        # DuckDB draws no line between header and rows where there are none.
        assert "├" in told.stdout or "lost" in query, (query, told.stdout)
    wrong = subprocess.run([sys.executable, root / "pipelines/sql.py", run, "SELECT nothing FROM labels"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "hint:" in wrong.stderr, wrong
    return len(queries)


def check_lineage(run: Path) -> int:
    """Every input of an event is an output of one before it, of the same version, or no file of the run."""
    root = Path(__file__).resolve().parents[2]
    told = subprocess.run([sys.executable, root / "pipelines/lineage.py", run], capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in told.stdout.splitlines()]
    version = lambda found: found["facets"]["version"]["datasetVersion"]
    written = {found["name"]: version(found) for event in events for found in event["outputs"]}
    for event in events:
        assert event["eventType"] == "COMPLETE" and event["outputs"] and event["eventTime"], event
        for found in event["inputs"]:
            assert written.get(found["name"]) == version(found) or not found["name"].startswith("iter-"), (event["job"], found)
    assert len({event["run"]["runId"] for event in events}) == len(events)
    return len(events)


def main() -> int:
    run, dataset, schemas = (Path(argument) for argument in sys.argv[1:4])
    known = {path.stem: json.loads(path.read_text()) for path in schemas.glob("*.json")}
    seen, num_rows = {}, 0
    for path in sorted(run.rglob("*.parquet")):
        name = path.name.split("-")[0]
        seen[name] = seen.get(name, 0) + 1
        num_rows += check_table(path, known[name])
    expected = {"rollouts", "challenges", "labels", "curriculum", "dropped", "label_probe", "rewards", "train_metrics", "step_timings", "eval_results"}
    assert set(seen) == expected, sorted(seen)

    names = datasets.get_dataset_config_names(str(dataset))
    assert sorted(names) == ["curriculum", "eval_results", "rollouts"], names
    provenance = json.loads((dataset / "provenance.json").read_text())["files"]
    for name in names:
        loaded = datasets.load_dataset(str(dataset), name, cache_dir=str(dataset.parent / "cache"))
        for split, rows in loaded.items():
            parts = [path for path in provenance if path.startswith(f"data/{name}/{split}-")]
            assert rows.num_rows == sum(provenance[path]["num_rows"] for path in parts), (name, split)
            assert rows.to_list() == [row for path in sorted(parts) for row in parquet.read_table(dataset / path).to_pylist()], (name, split)
            for column in known[name]["columns"]:
                found = rows.features.arrow_schema.field(column["name"]).type
                assert is_same(found, arrow_type(column["type"])), (name, column, found)
        print(f"{name}: {', '.join(f'{split} ({rows.num_rows})' for split, rows in loaded.items())}")
    num_queries = check_queries(run)
    print(f"{check_lineage(run)} lineage events")
    print(f"{sum(seen.values())} files of {len(seen)} tables, {num_rows} rows: the same by pyarrow, DuckDB, polars and datasets; {num_queries} queries of the README run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
