"""Whether link-time optimisation and single codegen units pay: `solve-sample` and `grpo-step` built both ways, run in turn on the same inputs.

`just bench-codegen` builds the second way into a folder of its own, which takes some 20 minutes on two cores. The bytes must be the same.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("solve-sample", "grpo-step")
REPEAT = 5


def build(target: Path) -> None:
    settings = {"CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_RELEASE_LTO": "thin", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "1"}
    command = ["cargo", "build", "--release", "--quiet", "--package", "rzero-stages"]
    command += [word for stage in STAGES for word in ("--bin", stage)]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | settings)


def run_stage(binary: Path, run: Path, stage: str) -> tuple[float, bytes]:
    """Seconds, and the bytes that count: of the answers, or of the checkpoint."""
    folder = run / "iter-001/challenger/step-01" / stage
    shutil.rmtree(folder, ignore_errors=True)
    place = ["--run", str(run), "--iteration", "1", "--phase", "challenger", "--step", "1", "--quiet"]
    started = time.monotonic()
    subprocess.run([binary, *place], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    written = folder / ("rollouts-00000-of-00001.parquet" if stage == "solve-sample" else "checkpoint/model.safetensors")
    return seconds, written.read_bytes()


def main() -> int:
    plain, target = Path(sys.argv[1]), Path(sys.argv[2])
    if not all((target / "release" / stage).is_file() for stage in STAGES):
        build(target)
    profiles = ["tiny"] + (["smollm2"] if (ROOT / "data/models/smollm2/config.json").is_file() else [])
    small = {"tiny": [], "smollm2": ["--set", "challenger.num_questions=32", "--set", "challenger.num_samples=4"]}
    for profile in profiles:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            first = ["--run", str(run), "--profile", f"pipelines/profiles/{profile}.toml", *small[profile]]
            place = ["--iteration", "1", "--phase", "challenger", "--step", "1", "--quiet"]
            for stage in ("challenge-gen", "solve-sample", "vote-label"):
                subprocess.run([plain / stage, *first, *place], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            for stage in STAGES:
                seconds: dict[str, list[float]] = {"plain": [], "lto": []}
                written = set()
                for _ in range(REPEAT if profile == "tiny" else 3):
                    for name, binaries in (("plain", plain), ("lto", target / "release")):
                        took, bytes_written = run_stage(binaries / stage, run, stage)
                        seconds[name].append(took)
                        written.add(bytes_written)
                    if stage == "solve-sample":
                        # What follows from the answers reads those that are there.
                        subprocess.run([plain / "vote-label", "--run", run, *place, "--overwrite"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
                plain_s, lto_s = (statistics.median(seconds[name]) for name in ("plain", "lto"))
                same = "the same bytes" if len(written) == 1 else "OTHER BYTES"
                print(f"{profile} {stage}: {plain_s:.2f} s, with LTO and one unit {lto_s:.2f} s, ratio {plain_s / lto_s:.3f}; {same}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
