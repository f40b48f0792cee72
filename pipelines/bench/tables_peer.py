"""`vote-label` and `filter` by DuckDB and by polars, from the same Parquet files, into Parquet of the same columns.

    python pipelines/bench/tables_peer.py FOLDER [--threads 2] [--repeat 3] [--only vote-label] [--peer duckdb]

FOLDER is that of `cargo bench --bench table_stages -- --folder FOLDER`, which must have run: its labels and verdicts are compared with the
peers'. Prints one line of JSON a case and peer. Each measurement is a process of its own, so that its peak memory is its own.

The peers take the text of the last box as it stands; they do not read it as a number, compare values, or check their inputs.
"""

import argparse
import glob
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

PLACE = "iter-001/curriculum"
LOW, HIGH, MIN_MARGIN, SLACK = 0.5, 0.9, 0.0, 1e-9


def parts(run, stage, table):
    return sorted(glob.glob(f"{run}/{PLACE}/{stage}/{table}-*.parquet"))


def duckdb_connection(threads):
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET preserve_insertion_order = true")
    return connection


def vote_label_duckdb(folder, output, threads):
    run = f"{folder}/votes"
    connection = duckdb_connection(threads)
    connection.execute(
        rf"""
        COPY (
            WITH answers AS (
                SELECT row, sample,
                    CASE WHEN finish_reason = 'length' THEN 'truncated'
                         WHEN NOT is_valid_utf8 THEN 'invalid_utf8'
                         WHEN answer <> '' THEN 'parsed'
                         WHEN contains(completion, '\boxed{{') THEN 'unbalanced_box'
                         ELSE 'no_box' END AS status,
                    answer
                FROM (
                    SELECT row, sample, finish_reason, is_valid_utf8, completion,
                        trim(regexp_extract(completion, '.*\\boxed\{{([^{{}}]*)\}}', 1)) AS answer
                    FROM read_parquet({parts(run, "solve-sample", "rollouts")})
                )
            ),
            counted AS (
                SELECT row, answer, count(*) AS votes FROM answers WHERE status = 'parsed' GROUP BY row, answer
            ),
            ranked AS (
                SELECT row, answer, votes,
                    row_number() OVER (PARTITION BY row ORDER BY votes DESC, strlen(answer), answer) AS rank
                FROM counted
            ),
            classes AS (
                SELECT row,
                    list(answer ORDER BY rank) AS class_answers,
                    list(votes::UINTEGER ORDER BY rank) AS class_counts
                FROM ranked GROUP BY row
            ),
            samples AS (
                SELECT answers.row,
                    count(*) AS num_samples,
                    count(*) FILTER (status = 'parsed') AS num_parsed,
                    count(*) FILTER (status = 'truncated') AS num_truncated,
                    list(status ORDER BY sample) AS sample_statuses,
                    list(coalesce(ranked.rank - 1, -1)::INTEGER ORDER BY sample) AS sample_classes
                FROM answers LEFT JOIN ranked
                    ON answers.row = ranked.row AND answers.answer = ranked.answer AND answers.status = 'parsed'
                GROUP BY answers.row
            )
            SELECT challenge_id, row, question,
                class_answers[1] AS pseudo_label,
                coalesce(class_counts[1], 0) / num_samples AS vote_share,
                (coalesce(class_counts[1], 0)::INTEGER - coalesce(class_counts[2], 0)::INTEGER) / num_samples AS margin,
                coalesce(list_sum(list_transform(class_counts, c -> -(c / num_parsed) * ln(c / num_parsed))), 0) AS vote_entropy,
                num_samples::UINTEGER AS num_samples,
                num_parsed::UINTEGER AS num_parsed,
                num_truncated::UINTEGER AS num_truncated,
                coalesce(class_answers, []) AS class_answers,
                coalesce(class_counts, []) AS class_counts,
                sample_statuses, sample_classes
            FROM read_parquet({parts(run, "challenge-gen", "challenges")}) AS challenges
            JOIN samples USING (row) LEFT JOIN classes USING (row)
            WHERE challenge_status = 'ok'
            ORDER BY row
        ) TO '{output}/labels.parquet' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)
        """
    )


def vote_label_polars(folder, output, threads):
    import polars as pl

    run = f"{folder}/votes"
    raw = pl.scan_parquet(parts(run, "solve-sample", "rollouts")).select(
        "row", "sample", "finish_reason", "completion", "is_valid_utf8"
    )
    boxed = pl.col("completion").str.extract(r".*\\boxed\{([^{}]*)\}", 1).str.strip_chars()
    answers = raw.with_columns(answer=boxed).select(
        "row",
        "sample",
        "answer",
        status=pl.when(pl.col("finish_reason") == "length")
        .then(pl.lit("truncated"))
        .when(~pl.col("is_valid_utf8"))
        .then(pl.lit("invalid_utf8"))
        .when(pl.col("answer").is_not_null())
        .then(pl.lit("parsed"))
        .when(pl.col("completion").str.contains(r"\boxed{", literal=True))
        .then(pl.lit("unbalanced_box"))
        .otherwise(pl.lit("no_box")),
    )
    ranked = (
        answers.filter(pl.col("status") == "parsed")
        .group_by("row", "answer")
        .agg(votes=pl.len())
        .with_columns(length=pl.col("answer").str.len_bytes())
        .sort(["row", "votes", "length", "answer"], descending=[False, True, False, False])
        .with_columns(rank=pl.int_range(pl.len()).over("row").cast(pl.Int32))
    )
    classes = ranked.group_by("row", maintain_order=True).agg(class_answers=pl.col("answer"), class_counts=pl.col("votes"))
    samples = (
        answers.with_columns(answer=pl.when(pl.col("status") == "parsed").then(pl.col("answer")))
        .join(ranked.select("row", "answer", "rank"), on=["row", "answer"], how="left")
        .sort("row", "sample")
        .group_by("row", maintain_order=True)
        .agg(
            num_samples=pl.len(),
            num_parsed=(pl.col("status") == "parsed").sum(),
            num_truncated=(pl.col("status") == "truncated").sum(),
            sample_statuses=pl.col("status"),
            sample_classes=pl.col("rank").fill_null(-1),
        )
    )
    count = lambda at: pl.col("class_counts").list.get(at, null_on_oob=True).fill_null(0).cast(pl.Int64)
    share = pl.element() / pl.element().sum()
    labels = (
        pl.scan_parquet(parts(run, "challenge-gen", "challenges"))
        .filter(pl.col("challenge_status") == "ok")
        .select("challenge_id", "row", "question")
        .join(samples, on="row", how="inner")
        .join(classes, on="row", how="left")
        .sort("row")
        .select(
            "challenge_id",
            "row",
            "question",
            pseudo_label=pl.col("class_answers").list.first(),
            vote_share=count(0) / pl.col("num_samples"),
            margin=(count(0) - count(1)) / pl.col("num_samples"),
            vote_entropy=pl.col("class_counts").list.eval(-(share * share.log())).list.sum().fill_null(0),
            num_samples=pl.col("num_samples"),
            num_parsed=pl.col("num_parsed"),
            num_truncated=pl.col("num_truncated"),
            class_answers=pl.col("class_answers"),
            class_counts=pl.col("class_counts"),
            sample_statuses=pl.col("sample_statuses"),
            sample_classes=pl.col("sample_classes"),
        )
    )
    labels.sink_parquet(f"{output}/labels.parquet", compression="zstd", compression_level=1)


def filter_duckdb(folder, output, threads):
    run = f"{folder}/candidates"
    connection = duckdb_connection(threads)
    connection.execute(f"SET temp_directory = '{output}/spill'")
    connection.execute(
        f"""
        CREATE TEMP TABLE verdicts AS
            SELECT challenges.challenge_id, challenges.row, challenges.question, challenge_status, pseudo_label, vote_share, margin,
                CASE WHEN challenge_status <> 'ok' THEN 'malformed'
                     WHEN firsts.row <> challenges.row THEN 'duplicate'
                     WHEN pseudo_label IS NULL THEN 'no_label'
                     WHEN isnan(vote_share) OR vote_share < {LOW - SLACK} THEN 'too_hard'
                     WHEN vote_share > {HIGH + SLACK} THEN 'too_easy'
                     WHEN isnan(margin) OR margin < {MIN_MARGIN - SLACK} THEN 'narrow_margin'
                END AS drop_reason
            FROM read_parquet({parts(run, "challenge-gen", "challenges")}) AS challenges
            LEFT JOIN (
                SELECT challenge_id, pseudo_label, vote_share, margin
                FROM read_parquet({parts(run, "vote-label", "labels")})
            ) AS labels ON labels.challenge_id = challenges.challenge_id
            LEFT JOIN (
                SELECT question, min(row) AS row FROM read_parquet({parts(run, "challenge-gen", "challenges")})
                WHERE question IS NOT NULL GROUP BY question
            ) AS firsts ON firsts.question = challenges.question
        """
    )
    connection.execute(
        f"""
        COPY (
            SELECT challenge_id, row, question, pseudo_label, vote_share, margin, 1::UINTEGER AS gate_version
            FROM verdicts WHERE drop_reason IS NULL ORDER BY row
        ) TO '{output}/curriculum.parquet' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)
        """
    )
    connection.execute(
        f"""
        COPY (
            SELECT challenge_id, row, question, drop_reason, challenge_status, pseudo_label, vote_share, margin,
                1::UINTEGER AS gate_version
            FROM verdicts WHERE drop_reason IS NOT NULL ORDER BY row
        ) TO '{output}/dropped.parquet' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)
        """
    )


def filter_polars(folder, output, threads):
    import polars as pl

    run = f"{folder}/candidates"
    labels = pl.scan_parquet(parts(run, "vote-label", "labels")).select("challenge_id", "pseudo_label", "vote_share", "margin")
    reason = pl.lit
    verdicts = (
        pl.scan_parquet(parts(run, "challenge-gen", "challenges"))
        .select("challenge_id", "row", "challenge_status", "question")
        .with_columns(is_first=pl.col("question").is_first_distinct())
        .join(labels, on="challenge_id", how="left", maintain_order="left")
        .with_columns(
            drop_reason=pl.when(pl.col("challenge_status") != "ok")
            .then(reason("malformed"))
            .when(~pl.col("is_first"))
            .then(reason("duplicate"))
            .when(pl.col("pseudo_label").is_null())
            .then(reason("no_label"))
            .when(pl.col("vote_share").is_nan() | (pl.col("vote_share") < LOW - SLACK))
            .then(reason("too_hard"))
            .when(pl.col("vote_share") > HIGH + SLACK)
            .then(reason("too_easy"))
            .when(pl.col("margin").is_nan() | (pl.col("margin") < MIN_MARGIN - SLACK))
            .then(reason("narrow_margin")),
            gate_version=pl.lit(1, pl.UInt32),
        )
        .collect()
    )
    figures = ["pseudo_label", "vote_share", "margin", "gate_version"]
    kept = verdicts.filter(pl.col("drop_reason").is_null()).select("challenge_id", "row", "question", *figures)
    kept.write_parquet(f"{output}/curriculum.parquet", compression="zstd", compression_level=1)
    refused = verdicts.filter(pl.col("drop_reason").is_not_null())
    refused.select("challenge_id", "row", "question", "drop_reason", "challenge_status", *figures).write_parquet(
        f"{output}/dropped.parquet", compression="zstd", compression_level=1
    )


WORK = {
    ("vote-label", "duckdb"): vote_label_duckdb,
    ("vote-label", "polars"): vote_label_polars,
    ("filter", "duckdb"): filter_duckdb,
    ("filter", "polars"): filter_polars,
}


def differing_rows(folder, output, case):
    """Rows in which ours and the peer's differ, in what both decide: labels and shares, or the reason of a drop."""
    connection = duckdb_connection(2)
    run = f"{folder}/{'votes' if case == 'vote-label' else 'candidates'}"
    comparisons = {
        "vote-label": [("labels", "pseudo_label, vote_share, margin, num_parsed, num_truncated, class_answers, class_counts, "
                        "sample_statuses, sample_classes")],
        "filter": [("curriculum", "challenge_id, question, pseudo_label, vote_share, margin"),
                   ("dropped", "challenge_id, question, drop_reason, challenge_status, pseudo_label, vote_share, margin")],
    }[case]
    differing = 0
    for table, columns in comparisons:
        ours = f"SELECT row, hash({columns}) AS content FROM read_parquet({parts(run, case, table)})"
        theirs = f"SELECT row, hash({columns}) AS content FROM read_parquet('{output}/{table}.parquet')"
        if table == "labels":
            casts = "CAST(num_parsed AS UINTEGER) AS num_parsed, CAST(num_truncated AS UINTEGER) AS num_truncated, " \
                    "CAST(class_counts AS UINTEGER[]) AS class_counts"
            ours = ours.replace("FROM read", f"FROM (SELECT * REPLACE ({casts}) FROM read") + ")"
            theirs = theirs.replace("FROM read", f"FROM (SELECT * REPLACE ({casts}) FROM read") + ")"
        differing += connection.execute(
            f"SELECT count(*) FROM ({ours}) AS a FULL JOIN ({theirs}) AS b USING (row) WHERE a.content IS DISTINCT FROM b.content"
        ).fetchone()[0]
    return differing


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["vote-label", "filter"])
    parser.add_argument("--peer", choices=["duckdb", "polars"])
    parser.add_argument("--output", help="one measurement, in this process: for the script itself")
    arguments = parser.parse_args()
    if arguments.output:
        started = time.perf_counter()
        WORK[arguments.only, arguments.peer](arguments.folder, arguments.output, arguments.threads)
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
        return
    environment = {**os.environ, "POLARS_MAX_THREADS": str(arguments.threads)}
    for (case, peer), _ in WORK.items():
        if arguments.only not in (None, case) or arguments.peer not in (None, peer):
            continue
        runs = []
        with tempfile.TemporaryDirectory(dir=arguments.folder) as output:
            for _ in range(arguments.repeat):
                command = [sys.executable, __file__, arguments.folder, "--only", case, "--peer", peer]
                command += ["--threads", str(arguments.threads), "--output", output]
                started = time.perf_counter()
                done = subprocess.run(command, env=environment, capture_output=True, text=True)
                whole = time.perf_counter() - started
                if done.returncode != 0:
                    message = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
                    print(json.dumps({"case": case, "name": peer, "failed": message[0]}))
                    break
                runs.append({**json.loads(done.stdout), "process_seconds": whole})
            if len(runs) < arguments.repeat:
                continue
            differing = differing_rows(arguments.folder, output, case)
        run = f"{arguments.folder}/{'votes' if case == 'vote-label' else 'candidates'}"
        stage, table = ("solve-sample", "rollouts") if case == "vote-label" else ("challenge-gen", "challenges")
        count = duckdb_connection(1).execute(f"SELECT count(*) FROM read_parquet({parts(run, stage, table)})").fetchone()[0]
        size = round(count / 1e6) if count >= 1e6 else None
        print(
            json.dumps(
                {
                    "case": f"{case} {size}M" if size else f"{case} {count}",
                    "name": peer,
                    "seconds": statistics.median(run["seconds"] for run in runs),
                    "runs": [run["seconds"] for run in runs],
                    "rows": count,
                    "peak_bytes": max(run["peak_bytes"] for run in runs),
                    "threads": arguments.threads,
                    "rows_that_differ": differing,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
