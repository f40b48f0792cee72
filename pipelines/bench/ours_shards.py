"""Two processes of one thread each beside one process of one thread: `solve-sample` of the curriculum phase, cut into shards.

Prints the seconds of each (`shards/1`, `shards/2`). Writes runs into a folder of its own, which is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--set", default="challenger.steps=0;curriculum.num_candidates=800", help="overrides of the profile")
    args = parser.parse_args()
    for shards in [1, 2]:
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {
                "RZERO_RUN": f"{folder}/run", "RZERO_PROFILE": f"pipelines/profiles/{args.profile}.toml", "RZERO_SET": args.set,
                "RZERO_THREADS": "1", "RUST_LOG": "error",
            }  # fmt: skip
            place = ["--iteration", "1", "--phase", "curriculum"]
            subprocess.run([args.bin / "challenge-gen", *place], check=True, env=environment, stdout=subprocess.DEVNULL)
            start = time.perf_counter()
            cut = [["--shard-index", str(index), "--num-shards", str(shards)] for index in range(shards)]
            command = [args.bin / "solve-sample", *place]
            running = [subprocess.Popen([*command, *flags], env=environment, stdout=subprocess.DEVNULL) for flags in cut]
            if any(process.wait() != 0 for process in running):
                raise SystemExit("solve-sample failed")
            print(json.dumps({"case": f"shards/{shards}", "setting": "", "value": time.perf_counter() - start, "unit": "s", "threads": shards}))


if __name__ == "__main__":
    main()
