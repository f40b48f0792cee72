"""Submits the stages of a run to Slurm, and tells where they are. `just slurm ACTION` calls it.

    iterate N, loop N   submit what is missing of N iterations, as a chain that needs nothing of this machine
    status              what is done, running, waiting (and for what) and stopped; exit code 1 where something stopped
    logs [WORD]         the last lines of what stopped, or else of what runs; of stages that WORD names
    cancel              end the jobs of this run, and of no other

The order of stages is that of `just plan`: lines that differ in --shard-index alone become one array. A stage's shard is done when its manifest is there;
Slurm is asked only for what is queued. A job carries the run and the stage in its comment, so that nothing is submitted twice, even where this
program was killed in the middle.

RUN/slurm/ holds the plan, a line for every submission, and the logs.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import fcntl
import getpass
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, NoReturn

ROOT = Path(__file__).resolve().parents[2]
RUN = Path(os.path.abspath(os.environ["RZERO_RUN"]))
FOLDER = RUN / "slurm"
LOGS = FOLDER / "logs"

# Stages that only move tables; all others hold a model.
DATA_STAGES = {"vote-label", "filter", "remember", "label-probe", "judge"}

# Stages that leave the model to a server, where there is one.
SAMPLING_STAGES = {"challenge-gen", "solve-sample", "verify", "eval"}

# Why Slurm lets a job wait, in words.
REASONS = {
    "Dependency": "for the stages before it",
    "Resources": "for free cores or memory",
    "Priority": "behind jobs of higher priority",
    "JobArrayTaskLimit": "for its own array's throttle",
    "BeginTime": "to be started again",
    "DependencyNeverSatisfied": "for a stage that failed: it will never start",
    "None": "to be looked at by the scheduler",
}


def fail(message: str, hint: str, code: int = 1) -> NoReturn:
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    raise SystemExit(code)


@dataclass(frozen=True)
class Group:
    """Lines of the plan that are one job: a stage at a place, in all its shards."""

    stage: str
    flags: tuple[str, ...]
    num_shards: int

    @property
    def key(self) -> str:
        return " ".join((self.stage, *self.flags))

    def flag(self, name: str) -> int | str | None:
        if name not in self.flags:
            return None
        value = self.flags[self.flags.index(name) + 1]
        return int(value) if value.isdigit() else value

    @property
    def place(self) -> tuple[Any, ...]:
        return (self.flag("--iteration"), self.flag("--phase"), self.flag("--step"))

    @property
    def title(self) -> str:
        iteration, phase, step = self.place
        update = self.flag("--update")
        words = [f"iteration {iteration}", str(phase)]
        words += [f"step {step}"] if step is not None else []
        words += [f"update {update}"] if update is not None else []
        return " ".join((*words, self.stage))

    @property
    def name(self) -> str:
        """For Slurm and file names: 1-solver-2-solve-sample."""
        return "-".join(str(part) for part in (*self.place, self.flag("--update"), self.stage) if part is not None)

    def folder(self, update: int | None) -> Path:
        """As crates/rzero-io/src/layout.rs lays a run out."""
        iteration, phase, step = self.place
        folder = RUN / f"iter-{iteration:03}" / str(phase)
        folder = folder / f"step-{step:02}" if step is not None else folder
        return (folder / f"update-{update:02}" if update else folder) / self.stage

    def finished(self, is_last_update: bool) -> list[int]:
        """Shards whose manifest is there."""
        update = None if self.stage == "grpo-step" and is_last_update else self.flag("--update")
        folder = self.folder(update if isinstance(update, int) else None)
        return [index for index in range(self.num_shards) if (folder / f"manifest-{index:05}-of-{self.num_shards:05}.json").is_file()]


def groups_of(lines: Iterable[str]) -> list[Group]:
    groups: list[Group] = []
    for line in lines:
        stage, *flags = line.split()
        num_shards = 1
        if "--shard-index" in flags:
            at = flags.index("--shard-index")
            del flags[at : at + 2]
            num_shards = int(flags[flags.index("--num-shards") + 1])
        group = Group(stage, tuple(flags), num_shards)
        if not groups or groups[-1] != group:
            groups.append(group)
    return groups


@dataclass(frozen=True)
class Task:
    """A task that Slurm has queued or running."""

    job: str
    index: int | None
    state: str
    reason: str

    @property
    def id(self) -> str:
        return self.job if self.index is None else f"{self.job}_{self.index}"


def slurm(*command: str, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env)
    except FileNotFoundError:
        fail(f"there is no `{command[0]}` on this machine", "run it where Slurm's commands are; without Slurm there is `just iterate`", 2)
    if done.returncode != 0:
        fail(f"`{command[0]}` failed: {done.stderr.strip()}", "once the cause is gone, the same command goes on: what is queued is not submitted twice", 75)
    return done.stdout


def comment(key: str = "") -> str:
    return f"rzero|{RUN}|{key}"


def queue() -> dict[str, list[Task]]:
    """What Slurm has of this run, by group."""
    found: dict[str, list[Task]] = collections.defaultdict(list)
    for line in slurm("squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%F|%K|%T|%r|%k").splitlines():
        job, index, state, reason, what = line.split("|", 4)
        if what.startswith(comment()):
            found[what[len(comment()) :]].append(Task(job, int(index) if index.isdigit() else None, state, reason))
    return found


@dataclass
class State:
    """Where a group is: shards by what became of them."""

    group: Group
    done: list[int]
    tasks: list[Task]
    job: str | None
    """The last job that it was submitted as."""

    @property
    def queued(self) -> list[int]:
        return [task.index or 0 for task in self.tasks]

    @property
    def missing(self) -> list[int]:
        return [index for index in range(self.group.num_shards) if index not in self.done and index not in self.queued]

    @property
    def waiting_jobs(self) -> list[str]:
        """Jobs that wait for the stage before."""
        return sorted({task.job for task in self.tasks if task.state == "PENDING" and task.reason.startswith("Dependency")})

    @property
    def is_done(self) -> bool:
        return len(self.done) == self.group.num_shards

    @property
    def is_stopped(self) -> bool:
        return bool(self.missing) and self.job is not None


def submissions() -> list[dict[str, Any]]:
    """What was submitted, from the first; a line that was cut short by a kill is of a job that the queue knows."""
    try:
        lines = (FOLDER / "jobs.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def states(groups: list[Group]) -> list[State]:
    tasks = queue()
    jobs = {record["stage"]: record["job"] for record in submissions()}
    last = {group.place: index for index, group in enumerate(groups) if group.flag("--update") is not None}
    result = []
    for index, group in enumerate(groups):
        done = group.finished(last.get(group.place) == index)
        result.append(State(group, done, tasks.get(group.key, []), jobs.get(group.key)))
    # What led to an update that is done may be gone.
    done_places: set[tuple[Any, ...]] = set()
    for state in reversed(result):
        if state.group.flag("--update") is not None:
            if state.group.place in done_places:
                state.done = list(range(state.group.num_shards))
            elif state.group.stage == "grpo-step" and state.is_done:
                done_places.add(state.group.place)
    return result


def ranges(indices: list[int]) -> str:
    """0-3,7"""
    parts: list[list[int]] = []
    for index in indices:
        if parts and parts[-1][1] == index - 1:
            parts[-1][1] = index
        else:
            parts.append([index, index])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def profile_of_cluster() -> dict[str, Any]:
    get = subprocess.run([os.environ["RZERO_BIN"] + "/profile-get", "cluster"], cwd=ROOT, capture_output=True, text=True)
    if get.returncode != 0:
        sys.stderr.write(get.stderr)
        raise SystemExit(get.returncode)
    return json.loads(get.stdout)


def submit(state: State, after: list[str], settings: dict[str, Any]) -> str:
    group = state.group
    asked = settings["data" if group.stage in DATA_STAGES else "model"]
    is_served = group.stage in SAMPLING_STAGES and os.environ.get("RZERO_BACKEND", "engine") != "engine"
    has_gpu = asked["gpus"] > 0 and not is_served
    is_array = group.num_shards > 1
    command = ["sbatch", "--parsable", "--requeue", "--open-mode=append", "--kill-on-invalid-dep=yes", "--chdir", str(ROOT)]
    command += ["--job-name", group.name, "--comment", comment(group.key), "--output", str(LOGS / f"{group.name}-{'%A_%a' if is_array else '%j'}.out")]
    command += ["--cpus-per-task", str(asked["cpus"]), "--mem", f"{asked['memory_gb']}G", "--time", str(asked["minutes"])]
    command += ["--signal", f"B:USR1@{settings['warning_s']}"]
    command += ["--partition", asked["queue"]] if asked["queue"] else []
    command += ["--gres", f"gpu:{asked['gpus']}"] if has_gpu else []
    command += ["--dependency", "afterok:" + ":".join(after)] if after else []
    if is_array:
        throttle = f"%{asked['throttle']}" if asked["throttle"] else ""
        command += ["--array", ranges(state.missing) + throttle]
    env = dict(os.environ, RZERO_SLURM_RESTARTS=str(settings["max_restarts"]))
    # Logs of a cluster are for machines too: `just` asks for the console's alone.
    if env.get("RUST_LOG", "").endswith("rzero_stages::console=info"):
        env["RUST_LOG"] = "info"
    if has_gpu:
        env.setdefault("RZERO_DEVICE", "cuda")
    job = slurm(*command, str(ROOT / "pipelines/slurm/task.bash"), group.stage, *group.flags, env=env).strip().split(";")[0]
    record = {"job": job, "stage": group.key, "shards": state.missing, "after": after, "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
    with (FOLDER / "jobs.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    return job


def loop(iterations: str) -> int:
    plan = subprocess.run(["bash", "-c", f"{os.environ['RZERO_AGAIN']} plan {iterations}"], cwd=ROOT, capture_output=True, text=True)
    if plan.returncode != 0:
        sys.stderr.write(plan.stderr)
        return plan.returncode
    settings = profile_of_cluster()
    LOGS.mkdir(parents=True, exist_ok=True)
    # Two that submit at a time would submit everything twice. The lock goes with the process, however it ends.
    lock = (FOLDER / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail(f"{os.environ['RZERO_RUN']} is being submitted by another process", "`just slurm status` tells what is queued", 75)
    temporary = FOLDER / ".plan.txt"
    temporary.write_text(plan.stdout)
    temporary.replace(FOLDER / "plan.txt")
    after: list[str] = []
    num_jobs = num_tasks = 0
    is_submitted_anew = False
    all_states = states(groups_of(plan.stdout.splitlines()))
    for state in all_states:
        if state.is_done:
            continue
        queued = [task.id for task in state.tasks]
        if is_submitted_anew:
            # They wait for the job that failed, whose other tasks still run, and would be cancelled with its end.
            for job in state.waiting_jobs:
                slurm("scontrol", "update", f"JobId={job}", f"Dependency=afterok:{':'.join(after)}")
        is_submitted_anew = bool(state.missing)
        if state.missing:
            job = submit(state, after, settings)
            num_jobs, num_tasks = num_jobs + 1, num_tasks + len(state.missing)
            queued.append(job)
        after = queued
    if num_jobs:
        print(f"submitted {num_jobs} jobs, {num_tasks} tasks, of {len(all_states)} stages: `just slurm status` tells where they are")
    elif after:
        print("nothing to submit: what is missing is queued; `just slurm status` tells where it is")
    else:
        print(f"{os.environ['RZERO_RUN']} is complete up to iteration {iterations}: nothing to do")
    return 0


def recorded_plan() -> list[Group]:
    try:
        return groups_of((FOLDER / "plan.txt").read_text().splitlines())
    except FileNotFoundError:
        fail(f"{os.environ['RZERO_RUN']} was never submitted", "`just slurm iterate 3` submits it", 2)


def place_of(state: State, indices: list[int]) -> str:
    """iteration 1 solver step 2 solve-sample, 5 of 8 shards done: shards 6-7"""
    group = state.group
    if group.num_shards == 1:
        return group.title
    word = "shard" if len(indices) == 1 else "shards"
    return f"{group.title}, {len(state.done)} of {group.num_shards} shards done: {word} {ranges(sorted(indices))}"


def status() -> int:
    all_states = states(recorded_plan())
    done = [state for state in all_states if state.is_done]
    print(f"{os.environ['RZERO_RUN']}: {len(done)} of {len(all_states)} stages are done" + (f", the last: {done[-1].group.title}" if done else ""))
    num_waiting = 0
    for state in all_states:
        by_state: dict[tuple[str, str], list[Task]] = collections.defaultdict(list)
        for task in state.tasks:
            by_state[(task.state, "" if task.state != "PENDING" else task.reason)].append(task)
        for (word, reason), tasks in by_state.items():
            if reason == "Dependency":
                num_waiting += 1
                continue
            jobs = ", ".join(sorted({task.job for task in tasks}))
            why = f" waits {REASONS.get(reason, f'({reason})')}" if reason else f" {word.lower()}"
            print(f"  {'waiting' if reason else 'running'}  {place_of(state, [task.index or 0 for task in tasks])}{why}, job {jobs}")
    stopped = [state for state in all_states if state.is_stopped]
    if num_waiting:
        print(f"  waiting  {num_waiting} more stages, each for the one before it")
    if stopped:
        first = stopped[0]
        print(f"  stopped  {place_of(first, first.missing)}, job {first.job}")
        if stopped[1:]:
            print(f"           {len(stopped[1:])} stages after it were cancelled")
        print("  next     `just slurm logs` shows why; once the cause is gone, the command that submitted it submits what is missing")
    elif not any(state.tasks for state in all_states) and len(done) < len(all_states):
        print("  next     nothing is queued: the command that submitted it submits the rest")
    return 1 if stopped else 0


def tail(path: Path, lines: int = 15) -> None:
    print(f"== {os.path.relpath(path)}")
    try:
        text = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        text = ["(no log: it was cancelled before it began, or its node could not write here)"]
    print("\n".join(text[-lines:]))


def logs(word: str) -> int:
    all_states = [state for state in states(recorded_plan()) if word in state.group.name]
    stopped = [state for state in all_states if state.is_stopped]
    shown = 0
    for state in stopped or [state for state in all_states if any(task.state != "PENDING" for task in state.tasks)] or (all_states if word else []):
        for path in sorted(LOGS.glob(f"{state.group.name}-*.out"), key=lambda path: path.stat().st_mtime):
            index = re.search(r"_(\d+)\.out$", path.name)
            if not stopped or index is None or int(index[1]) in state.missing:
                tail(path)
                shown += 1
        # Stages behind the first that stopped were cancelled with it.
        if stopped and shown:
            break
    if not shown:
        print("nothing has stopped and nothing runs; `just slurm logs WORD` shows the logs of stages that WORD names, for example solve-sample")
    return 0


def cancel() -> int:
    jobs = sorted({task.job for tasks in queue().values() for task in tasks}, key=int)
    if jobs:
        slurm("scancel", *jobs)
    print(f"cancelled {len(jobs)} jobs of {os.environ['RZERO_RUN']}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="just slurm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    for action in ("iterate", "loop"):
        actions.add_parser(action).add_argument("iterations", nargs="?", default="3")
    actions.add_parser("status")
    actions.add_parser("logs").add_argument("word", nargs="?", default="")
    actions.add_parser("cancel")
    args = parser.parse_args()
    if "://" in os.environ["RZERO_RUN"]:
        hint = "name a folder that all nodes see; single stages work on a store, by --run or `just render-job`"
        fail(f"{os.environ['RZERO_RUN']} lies in an object store, and the chain keeps its jobs and logs in the run directory", hint, 2)
    os.chdir(ROOT)
    if args.action in ("iterate", "loop"):
        return loop(args.iterations)
    return {"status": status, "logs": lambda: logs(args.word), "cancel": cancel}[args.action]()


if __name__ == "__main__":
    sys.exit(main())
