"""SQL over the tables of a run, with DuckDB: `just sql 'select ...'`; without a query, what there is.

Every table is a view over all its parts, `rollouts`, `labels`, `curriculum`, ..., with where each row lies in the run: `at_iteration`, `at_phase`, `at_step` (0 where
there is none) and `at_stage`. `manifests` has a row for each shard: stage, place, seconds, counts, metrics.

Only parts that a manifest lists are read. DuckDB is the Python package of that name, wherever `python3` finds it, or where `just test-readers` installed it.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def fail(message: str, hint: str, code: int) -> int:
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    return code


def main() -> int:
    try:
        import duckdb
    except ImportError:
        return fail("DuckDB is not installed", "pip install duckdb, or `just test-readers`, which installs it in the build folder", 1)
    run, query = Path(sys.argv[1]), " ".join(sys.argv[2:]).strip()
    if not (run / "run.json").is_file():
        return fail(f"{run} holds no run: it has no run.json", "name the directory of a run: just run=data/runs/tiny sql ...", 3)
    parts: dict[str, list[str]] = {}
    manifests = sorted(run.glob("iter-*/**/manifest-*.json"))
    for path in manifests:
        for output in json.loads(path.read_text())["outputs"]:
            if output["table"]:
                parts.setdefault(output["table"], []).append(str(run / output["path"]))
    database = duckdb.connect()
    place = "iter-(\\d+)/([a-z]+)/(?:step-(\\d+)/)?(?:update-\\d+/)?([a-z-]+)/"
    at = ", ".join(
        f"{expression} AS at_{name}"
        for name, expression in (
            ("iteration", f"regexp_extract(filename, '{place}', 1)::INT"),
            ("phase", f"regexp_extract(filename, '{place}', 2)"),
            ("step", f"coalesce(try_cast(regexp_extract(filename, '{place}', 3) AS INT), 0)"),
            ("stage", f"regexp_extract(filename, '{place}', 4)"),
        )
    )
    for table, files in parts.items():
        source = f"read_parquet({sorted(files)!r}, filename = true)"
        database.sql(f"CREATE VIEW {table} AS SELECT {at}, * EXCLUDE (filename) FROM {source}")
    if manifests:
        names = [str(path) for path in manifests]
        types = {name: "VARCHAR" for name in ("stage", "phase", "device", "started_at", "finished_at")}
        types |= {name: "INT" for name in ("iteration", "step", "shard_index", "num_shards", "threads")}
        types |= {"seconds": "DOUBLE", "counts": "MAP(VARCHAR, UBIGINT)", "metrics": "MAP(VARCHAR, DOUBLE)"}
        database.sql(f"CREATE VIEW manifests AS SELECT * FROM read_json({names!r}, columns = {types!r})")
    if not query:
        for table in [*sorted(parts), "manifests"]:
            rows = database.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0]
            print(f"{table}: {rows} rows; {', '.join(database.sql(f'SELECT * FROM {table} LIMIT 0').columns)}")
        return 0
    try:
        found = database.sql(query)
    except duckdb.Error as error:
        return fail(str(error), "`just sql` without a query lists tables and columns", 2)
    if found is not None:
        found.show(max_rows=1000, max_width=200)
    return 0


if __name__ == "__main__":
    sys.exit(main())
