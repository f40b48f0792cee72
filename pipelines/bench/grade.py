"""Pairs of answers graded in a second: the binary `grade`, or math-verify (Hu et al., Hugging Face), on the answers of the grader's fixture.

One process; each pair is given to math-verify as `\\boxed{...}`. Prints the rate, and how many verdicts are as the fixture intends.

    python3 pipelines/bench/grade.py ours --bin target/release
    python3 pipelines/bench/grade.py math-verify
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

PAIRS = Path(__file__).resolve().parents[2] / "crates/rzero-algo/tests/fixtures/grader_pairs.jsonl"

# Enough for the start of the process not to count, which it does all the same.
ROUNDS = 200


def by_ours(rows: list[dict[str, object]], folder: Path) -> tuple[list[bool], float]:
    text = "".join(json.dumps({"gold": row["gold"], "pred": row["pred"]}) + "\n" for row in rows) * ROUNDS
    start = time.perf_counter()
    output = subprocess.run([folder / "grade"], input=text, capture_output=True, text=True, check=True).stdout
    seconds = (time.perf_counter() - start) / ROUNDS
    return [json.loads(line)["verdict"] == "equal" for line in output.splitlines()[: len(rows)]], seconds


def by_math_verify(rows: list[dict[str, object]]) -> tuple[list[bool], float]:
    from math_verify import parse, verify

    verdicts = []
    start = time.perf_counter()
    for row in rows:
        try:
            verdicts.append(bool(verify(parse(f"\\boxed{{{row['gold']}}}"), parse(f"\\boxed{{{row['pred']}}}"))))
        except Exception:  # noqa: BLE001 -- whatever stops it is no verdict
            verdicts.append(False)
    return verdicts, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", choices=["ours", "math-verify"])
    parser.add_argument("--bin", type=Path, help="folder of the binary `grade`")
    args = parser.parse_args()
    rows = [row for row in map(json.loads, PAIRS.read_text().splitlines()) if row["kind"] == "answer"]
    verdicts, seconds = by_ours(rows, args.bin) if args.who == "ours" else by_math_verify(rows)
    right = sum(verdict == row["intended"] for verdict, row in zip(verdicts, rows))
    false = sum(verdict and not row["intended"] for verdict, row in zip(verdicts, rows))
    line = {"case": "grading", "setting": "", "value": len(rows) / seconds, "unit": "pairs/s", "as_intended": right, "false_positives": false}
    print(json.dumps(line | {"pairs": len(rows)}))


if __name__ == "__main__":
    main()
