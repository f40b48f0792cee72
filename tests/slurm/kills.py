"""Kills tasks, the controller and the driver of smoke iterations on a real Slurm cluster, at random: the same bytes every time.

    just test-kills 100

A task is killed with -9, its whole process group; slurmctld is killed with -9 and started again; the driver (`just slurm loop`) is killed with -9 while it
submits. Whatever has stopped is submitted again until the iteration is complete; then `just loop` must find nothing to do, the files must be those of an
undisturbed run, and no temporary file may be left. Then the next iteration begins, until there were so many kills.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster import ROOT, Cluster, differences, lasting_files


# A controller that is killed while a task ends can hold that task for running until its time is up, which it sees half a minute after its start.
LIMITS = "cluster.warning_s=10;cluster.model.minutes=1;cluster.data.minutes=1"


class Killer:
    def __init__(self, cluster: Cluster, binaries: Path, seed: int):
        self.cluster, self.binaries = cluster, binaries
        self.chance = random.Random(seed)
        self.kills: collections.Counter[str] = collections.Counter()
        # Whether anything happened since the controller began.
        self.is_controller_in_use = False

    def command(self, run: Path, *arguments: str) -> list[str]:
        just = self.cluster.env.get("RZERO_JUST", "just")
        return [just, "profile=smoke", f"run={run}", f"bin={self.binaries}", "shards=2", "threads=1", f"set={LIMITS}", *arguments]

    def driver(self, run: Path) -> None:
        """Submits; now and then it is killed on the way."""
        self.is_controller_in_use = True
        process = subprocess.Popen(self.command(run, "slurm", "loop", "1"), cwd=ROOT, env=self.cluster.env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.chance.random() < 0.5:
            try:
                process.wait(self.chance.uniform(0.05, 1.0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                self.kills["drivers"] += 1
        process.wait()

    def a_task(self, run: Path) -> None:
        """Kills a stage of the run that is at work, some moment after it was seen, as the kernel does where memory is short."""
        stages = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                program = os.readlink(process / "exe")
                environ = (process / "environ").read_bytes()
            except OSError:
                continue
            if program.startswith(str(self.binaries)) and f"RZERO_RUN={run}".encode() in environ and b"SLURM_JOB_ID=" in environ:
                stages.append(int(process.name))
        self.is_controller_in_use |= bool(stages)
        if stages and self.chance.random() < 0.3:
            time.sleep(self.chance.uniform(0.0, 0.08))
            try:
                os.kill(self.chance.choice(stages), signal.SIGKILL)
                self.kills["tasks"] += 1
            except ProcessLookupError:
                pass

    def the_controller(self) -> None:
        self.cluster.kill_daemon("slurmctld")
        self.cluster.start_controller()
        # What is left of one that was killed a moment ago can end its successor at its start.
        time.sleep(0.5)
        if self.cluster.pid("slurmctld") is None:
            self.cluster.start_controller()
        self.kills["controllers"] += 1
        self.is_controller_in_use = False

    def iteration(self, run: Path) -> None:
        """One iteration under fire, to its end."""
        end = time.monotonic() + 600
        submitted = 0.0
        while True:
            if time.monotonic() > end:
                raise AssertionError(f"the iteration does not end: {done.returncode} {done.stdout}{done.stderr}")
            done = subprocess.run(self.command(run, "slurm", "status"), cwd=ROOT, env=self.cluster.env, capture_output=True, text=True)
            is_complete = "19 of 19" in done.stdout
            if is_complete:
                return
            is_quiet = done.returncode == 1 or done.returncode == 2 or "nothing is queued" in done.stdout
            if is_quiet and time.monotonic() - submitted > 1:
                self.driver(run)
                submitted = time.monotonic()
            for _ in range(self.chance.randint(5, 40)):
                self.a_task(run)
                time.sleep(self.chance.uniform(0.0, 0.03))
            if self.is_controller_in_use and self.chance.random() < 0.04:
                self.the_controller()


def main() -> int:
    parser = argparse.ArgumentParser(prog="just test-kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rzero-test-kills-") as folder, Cluster() as cluster:
        killer = Killer(cluster, args.bin.resolve(), args.seed)
        reference = Path(folder) / "undisturbed"
        subprocess.run(killer.command(reference, "loop", "1"), cwd=ROOT, env=cluster.env, check=True, capture_output=True)
        number = 0
        while killer.kills.total() < args.kills:
            number += 1
            run = Path(folder) / f"run-{number}"
            killer.iteration(run)
            done = subprocess.run(killer.command(run, "loop", "1"), cwd=ROOT, env=cluster.env, capture_output=True, text=True)
            changed = differences(run, reference)
            left = [str(path.relative_to(run)) for path in run.rglob(".*")]
            told = ", ".join(f"{count} {what}" for what, count in sorted(killer.kills.items()))
            is_good = done.returncode == 0 and not changed and not left
            print(f"{'OK    ' if is_good else 'FAILED'}  {time.monotonic() - started:5.0f} s  iteration {number}, {len(lasting_files(run))} files; killed so far: {told}", flush=True)
            if not is_good:
                print(f"error: differs: {changed}; left: {left}; just loop: {done.returncode} {done.stderr[-500:]}", file=sys.stderr)
                return 1
        print(f"{killer.kills.total()} kills in {number} iterations: the same bytes each time, no temporary file left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
