"""What cutting work into processes gives, and what a stage costs besides generating and training, on the embedded model.

    python pipelines/bench/shards.py [--bin target/release] [--repeat 3] [--only shards|start|iteration]

Prints lines of JSON:

shards     solve-sample on the answers of one Challenger step: one process with one thread, one with two, and two processes of one thread each
           at the same time. `ratio` is how many times faster than the first.
start      from the start of a process to its end where there is nothing to do: --version, --dry-run, and output that is complete.
iteration  one iteration as `just loop 1` runs it. `overhead` is the share of its wall time in which nothing was generated or trained: all of
           the wall time, less the seconds that the policy's engine ran (the stages say them in their log) and those that step_timings gives for
           reference, gradient and optimizer. Process starts, just, Parquet, manifests, votes, rewards and reading the model are in it.
"""

import argparse
import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("--bin", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release")
parser.add_argument("--repeat", type=int, default=3)
parser.add_argument("--questions", type=int, default=1024)
parser.add_argument("--only", choices=["shards", "start", "iteration"])
arguments = parser.parse_args()
root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
environment = {key: value for key, value in os.environ.items() if not key.startswith(("RZERO_", "RUST_LOG"))}


def binary(name):
    return os.path.abspath(os.path.join(arguments.bin, name))


def tell(**line):
    print(json.dumps(line), flush=True)


def start(name, run, *flags, threads=1):
    command = [binary(name), "--run", run, "--profile", f"{root}/pipelines/profiles/tiny.toml", "--quiet"]
    command += ["--set", f"challenger.num_questions={arguments.questions}", "--threads", str(threads), *flags]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)


def finish(*processes):
    for process in processes:
        if process.wait() != 0:
            sys.exit(f"a stage ended with {process.returncode}")


def shards(folder):
    run = f"{folder}/shards"
    place = ["--iteration", "1", "--phase", "challenger", "--step", "1"]
    finish(start("challenge-gen", run, *place, threads=2))
    ways = {"1 process x 1 thread": (1, 1), "1 process x 2 threads": (1, 2), "2 processes x 1 thread": (2, 1)}
    seconds = {way: [] for way in ways}
    tables = []
    for _ in range(arguments.repeat):
        for way, (processes, threads) in ways.items():
            shutil.rmtree(f"{run}/iter-001/challenger/step-01/solve-sample", ignore_errors=True)
            started = time.perf_counter()
            cut = [["--num-shards", str(processes), "--shard-index", str(index)] for index in range(processes)]
            finish(*[start("solve-sample", run, *place, *flags, threads=threads) for flags in cut])
            seconds[way].append(time.perf_counter() - started)
    # Each round has its own baseline: the machine is not equally fast at all times.
    for way, (processes, threads) in ways.items():
        ratios = [base / own for base, own in zip(seconds["1 process x 1 thread"], seconds[way])]
        tell(case="shards: solve-sample", name=way, seconds=statistics.median(seconds[way]), runs=seconds[way],
             ratio=statistics.median(ratios), ratios=ratios, rows=arguments.questions * 8, load=os.getloadavg()[0], threads=processes * threads)


def start_up(folder):
    run = f"{folder}/shards"
    place = ["--iteration", "1", "--phase", "challenger", "--step", "1"]
    shutil.rmtree(f"{run}/iter-001/challenger/step-01/solve-sample", ignore_errors=True)
    finish(start("challenge-gen", run, *place, threads=2))
    finish(start("solve-sample", run, *place, threads=2))
    finish(start("vote-label", run, *place))
    cases = [
        ("vote-label --version", lambda: subprocess.Popen([binary("vote-label"), "--version"], stdout=subprocess.DEVNULL)),
        ("filter --version", lambda: subprocess.Popen([binary("filter"), "--version"], stdout=subprocess.DEVNULL)),
        ("vote-label --dry-run", lambda: start("vote-label", run, *place, "--dry-run")),
        ("vote-label, complete already", lambda: start("vote-label", run, *place)),
        ("solve-sample, complete already", lambda: start("solve-sample", run, *place)),
    ]
    for name, begin in cases:
        seconds = []
        for _ in range(20):
            started = time.perf_counter()
            finish(begin())
            seconds.append(time.perf_counter() - started)
        tell(case="start", name=name, seconds=statistics.median(seconds), worst=max(seconds), threads=1)


def iteration(folder):
    run = f"{folder}/iteration"
    log = {**environment, "RUST_LOG": "warn,rzero_stages::policy=debug", "RZERO_LOG": "json"}
    command = [os.environ.get("RZERO_JUST", "just"), f"run={run}", f"bin={os.path.abspath(arguments.bin)}", "threads=2", "loop", "1"]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=root, env=log, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wall = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(done.stderr)
    generating = sum(float(found) for found in re.findall(r'"message":"generated","seconds":([0-9.e-]+)', done.stderr))
    import duckdb

    timings = sorted(glob.glob(f"{run}/**/step_timings-*.parquet", recursive=True))
    training = duckdb.sql(
        f"SELECT sum(reference_seconds + gradient_seconds + optimizer_seconds) FROM read_parquet({timings})"
    ).fetchall()[0][0]
    manifests = glob.glob(f"{run}/**/manifest-*.json", recursive=True)
    in_stages = 0.0
    for path in manifests:
        with open(path, encoding="utf-8") as file:
            in_stages += json.load(file)["seconds"]
    other = wall - generating - training
    tell(case="iteration of the embedded model", name="rzero", seconds=wall, generating=generating, training=training,
         other=other, overhead=other / wall, stages=len(manifests), between_stages=wall - in_stages, threads=2)


with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
    if arguments.only in (None, "shards"):
        shards(folder)
    if arguments.only in (None, "start"):
        start_up(folder)
    if arguments.only in (None, "iteration"):
        iteration(folder)
