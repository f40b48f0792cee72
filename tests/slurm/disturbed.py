"""A smoke iteration on a real Slurm cluster where things go wrong: a task killed, a node lost, a time limit, a preemption, a shard that fails.

    just test-slurm

Ends with the bytes of `just loop`. Prints a line for each disturbance, and the seconds of an undisturbed iteration from nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from cluster import Cluster, differences, lasting_files, wait_for, wrappers

SHARDS = "3"
# Gradients that can be shared by two processes, in all runs alike.
PARTS = "challenger.grpo.gradient_parts=2;solver.grpo.gradient_parts=2"


class Test:
    def __init__(self, cluster: Cluster, binaries: Path, folder: Path):
        self.cluster, self.binaries, self.folder = cluster, binaries, folder
        self.wrapped = folder / "bin"
        wrappers(self.wrapped, binaries)
        self.orders = self.wrapped / "orders"
        self.run = folder / "disturbed"
        self.started = time.monotonic()

    def just(self, *arguments: str, run: Path | None = None, binaries: Path | None = None, expect: int | None = 0) -> str:
        head = ("profile=smoke", f"run={run or self.run}", f"bin={binaries or self.wrapped}", f"set={PARTS}", f"shards={SHARDS}", "threads=1")
        done = self.cluster.just(*head, *arguments)
        text = done.stdout + done.stderr
        assert expect is None or done.returncode == expect, f"`just {' '.join(arguments)}` ended with {done.returncode}:\n{text}"
        return text

    def order(self, stage: str, shard: int, what: str = "hold") -> Path:
        """What the next task of a stage does before its work: it is held until `let_go`, or fails."""
        path = self.orders / f"{stage}-{shard}"
        path.with_suffix(".go").unlink(missing_ok=True)
        path.write_text(what + "\n")
        return path

    def task_at_work(self, order: Path) -> dict[str, str]:
        """Waits until a task has taken its order; tells its node and its processes."""
        wait_for(f"a task that takes the order {order.name}", order.with_suffix(".taken").exists)
        order.with_suffix(".taken").unlink()
        stage, shard = order.name.rsplit("-", 1)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                environ = dict(part.partition("=")[::2] for part in (process / "environ").read_bytes().decode(errors="replace").split("\0"))
            except OSError:
                continue
            if f"{self.wrapped}/{stage}" in command and environ.get("SLURM_ARRAY_TASK_ID", "0") == shard:
                job = environ["SLURM_JOB_ID"]
                return {"pid": process.name, "node": environ["SLURMD_NODENAME"], "job": job, "array": environ.get("SLURM_ARRAY_JOB_ID", job)}
        raise AssertionError(f"no process of {order.name} is at work")

    def let_go(self, order: Path) -> None:
        order.with_suffix(".go").touch()

    def told(self, what: str, is_so: bool, detail: str = "") -> None:
        print(f"{'OK    ' if is_so else 'FAILED'}  {time.monotonic() - self.started:5.0f} s  {what}", flush=True)
        if not is_so:
            raise AssertionError(f"{what}: {detail}")


def undisturbed(test: Test) -> Path:
    """From nothing to a finished iteration."""
    run, clock = test.folder / "undisturbed", time.monotonic()
    test.just("slurm", "loop", "1", run=run, binaries=test.binaries)
    test.cluster.wait_until_empty()
    seconds = time.monotonic() - clock
    text = test.just("slurm", "status", run=run, binaries=test.binaries)
    test.told(f"an undisturbed iteration, {seconds:.0f} s from nothing", text.count("\n") == 1 and "19 of 19" in text, text)
    local = test.folder / "local"
    test.just("loop", "1", run=local, binaries=test.binaries)
    changed = differences(run, local)
    test.told(f"its {len(lasting_files(local))} files are those of `just loop`", not changed, str(changed))
    text = test.just("slurm", "loop", "1", run=run, binaries=test.binaries)
    test.told("submitted again, nothing is to be done", "nothing to do" in text and not test.cluster.tasks(), text)
    with (run / "slurm/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = test.just("slurm", "loop", "1", run=run, binaries=test.binaries, expect=75)
    test.told("nobody submits while another does", "by another process" in text, text)
    return local


def gradients_are_shared(test: Test, local: Path) -> None:
    """The same with two tasks for each gradient; beside it a run that is given up."""
    run, other = test.folder / "shared", test.folder / "given-up"
    order, later = test.order("eval", 0), test.order("label-probe", 0)
    test.just("slurm", "loop", "1", run=other)
    test.task_at_work(order)
    test.just("gradients=2", "slurm", "loop", "1", run=run)
    num_tasks = len(test.cluster.tasks())
    text = test.just("slurm", "cancel", run=other)
    wait_for("the end of the jobs of the run given up", lambda: "  waiting" not in test.just("slurm", "status", run=other, expect=None))
    is_alone = 0 < len(test.cluster.tasks()) < num_tasks
    test.task_at_work(later)
    test.let_go(later)
    test.cluster.wait_until_empty()
    text += test.just("slurm", "status", run=run)
    test.told("a run is cancelled, and the one beside it goes on", is_alone and "cancelled 19 jobs" in text, text)
    changed = differences(run, local)
    test.told("two tasks for each gradient: the files of one process", "23 of 23" in text and not changed, text + str(changed))


def a_task_is_killed(test: Test) -> Path:
    """Ends with one shard that failed and another that is held."""
    order = test.order("solve-sample", 1)
    test.just("slurm", "loop", "1")
    task = test.task_at_work(order)
    again = test.just("slurm", "loop", "1")
    test.told("what is queued is not submitted twice", "nothing to submit" in again, again)
    os.kill(int(task["pid"]), signal.SIGKILL)
    test.cluster.wait_until_empty()
    text = test.just("slurm", "status", expect=1)
    test.told("a task killed with -9 stops its stage, and the stages after it are cancelled", "solve-sample, 2 of 3 shards done: shard 1" in text and "cancelled" in text, text)
    text = test.just("slurm", "logs")
    test.told("its log is shown", "solve-sample" in text and "exit code 137" in text, text)
    # For later: one shard will fail while another is at work.
    failing, slow = test.order("vote-label", 0, "fail 1"), test.order("vote-label", 2)
    text = test.just("slurm", "loop", "1")
    record = (test.run / "slurm/jobs.jsonl").read_text()
    test.told("submitted again, it is the missing shard alone", '"shards": [1]' in record, record)
    task = test.task_at_work(slow)
    wait_for("the failure of a shard", lambda: "  stopped" in test.just("slurm", "status", expect=None))
    text = test.just("slurm", "status", expect=1)
    is_beside = Path(f"/proc/{task['pid']}").exists()
    test.told("a shard that fails is told while another is at work", "1 of 3 shards done: shard 0" in text and is_beside, text)
    failing.unlink()
    return slow


def a_node_is_lost(test: Test, held: Path) -> None:
    order = test.order("filter", 0)
    # For later: the run goes on from here by itself.
    limit, preempted = test.order("eval", 2), test.order("eval", 1)
    test.just("slurm", "loop", "1")
    test.let_go(held)
    task = test.task_at_work(order)
    test.told("submitted again while another shard is at work, the run goes on with both", True)
    node = task["node"]
    test.cluster.kill_daemon(f"slurmd-{node}")
    test.cluster.ask("scontrol", "update", f"node={node}", "state=down", "reason=lost")
    # The task itself goes on: it will write the same files as the one that takes its place.
    test.told("a node is lost, its orphan goes on", Path(f"/proc/{task['pid']}").exists())
    phase = test.run / "iter-001"
    wait_for("the stage after the lost one", lambda: any(phase.glob("solver/step-01/solve-sample/manifest-*.json")))
    test.told("another node takes its place", Path(f"/proc/{task['pid']}").exists() and any(phase.glob("curriculum/filter/manifest-*.json")))
    test.let_go(order)
    wait_for("the end of the orphan", lambda: not Path(f"/proc/{task['pid']}").exists())
    test.cluster.start_node(node)
    test.cluster.ask("scontrol", "update", f"node={node}", "state=resume")
    a_time_limit_and_a_preemption(test, limit, preempted)


def a_time_limit_and_a_preemption(test: Test, limit: Path, preempted: Path) -> None:
    task = test.task_at_work(limit)
    beside = test.task_at_work(preempted)
    test.cluster.ask("scontrol", "update", f"JobId={task['job']}", "TimeLimit=1")
    wait_for("the task to be told of its time limit", lambda: test.cluster.restarts(task["array"], 2) > 0)
    test.told("a task that reaches its time limit is told before, exits with 75 and is queued again", True)
    script = test.folder / "urgent.bash"
    script.write_text("#!/bin/bash\nsleep 3\n")
    test.cluster.ask("sbatch", "-p", "urgent", "--exclusive", "--nodes=3", "-o", "/dev/null", str(script))
    wait_for("the preemption", lambda: test.cluster.restarts(beside["array"], 1) > 0)
    test.told("a preempted task is queued again", True)
    test.cluster.wait_until_empty()


def main() -> int:
    parser = argparse.ArgumentParser(prog="just test-slurm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path)
    args = parser.parse_args()
    binaries = args.bin.resolve()
    with tempfile.TemporaryDirectory(prefix="rzero-test-slurm-") as folder, Cluster() as cluster:
        test = Test(cluster, binaries, Path(folder))
        try:
            local = undisturbed(test)
            gradients_are_shared(test, local)
            a_node_is_lost(test, a_task_is_killed(test))
            text = test.just("slurm", "status")
            test.told("the disturbed run is complete", "19 of 19" in text, text)
            changed = differences(test.run, local)
            test.told("its files are those of `just loop`", not changed, str(changed))
            left = [str(path) for path in test.run.rglob(".*")]
            test.told("no temporary file is left", not left, str(left))
        except AssertionError as error:
            print(f"error: {error}", file=sys.stderr)
            for line in cluster.tasks():
                print("  queued: " + " ".join(line), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
