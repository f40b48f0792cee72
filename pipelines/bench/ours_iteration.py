"""One iteration of the embedded model by the real stages, phase by phase, as `just iterate` runs it. The peer is trl_iteration.py.

Prints the seconds of the iteration (Challenger, curriculum and Solver phases; evaluation is apart) and of one Solver step. Writes a run into a folder of
its own, which is removed.

    python3 pipelines/bench/ours_iteration.py --just just --bin target/release --threads 2 --profile tiny
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

PHASES = ["challenger", "curriculum", "solver"]


def phases(args: argparse.Namespace, run: Path) -> dict[str, float]:
    """Seconds of each phase of iteration 1."""
    base = [args.just, f"profile={args.profile}", f"run={run}", f"bin={args.bin}", f"threads={args.threads}"]
    base += [f"set={args.set}"] if args.set else []
    seconds = {}
    for phase in PHASES:
        start = time.perf_counter()
        subprocess.run([*base, f"{phase}-phase", "1"], check=True, stdout=subprocess.DEVNULL, env=os.environ | {"RUST_LOG": "error"})
        seconds[phase] = time.perf_counter() - start
    return seconds


def num_steps(args: argparse.Namespace, phase: str) -> int:
    command = [args.bin / "profile-get", "--profile", f"pipelines/profiles/{args.profile}.toml", f"{phase}.steps"]
    environment = os.environ | ({"RZERO_SET": args.set} if args.set else {})
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--just", default="just")
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--set", default="", help="overrides of the profile")
    args = parser.parse_args()
    steps = {phase: num_steps(args, phase) for phase in ("challenger", "solver")}
    with tempfile.TemporaryDirectory() as folder:
        seconds = phases(args, Path(folder) / "run")
    setting = {"setting": f"profile {args.profile}", "threads": args.threads, "phases": seconds, "steps": steps}
    print(json.dumps({"case": "iteration", "value": sum(seconds.values()), "unit": "s"} | setting))
    print(json.dumps({"case": "solver-step", "value": seconds["solver"] / max(1, steps["solver"]), "unit": "s"} | setting))


if __name__ == "__main__":
    main()
