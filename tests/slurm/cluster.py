"""A private Slurm cluster of three virtual nodes on this machine, for the tests beside this file. Needs root; nothing outlives it.

Loopback only, no accounts, no munge: for tests and nothing else. Nodes claim more cores than there are, so that tasks run side by side.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parents[2]
NODES = ("n0", "n1", "n2")
DAEMONS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=86400
KillWait=5
ReturnToService=2
NodeName=n[0-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n[0-2] Default=YES PriorityTier=1
PartitionName=urgent Nodes=n[0-2] PriorityTier=10 PreemptMode=OFF
"""


def install() -> None:
    """Slurm from Debian's packages, where it is not there."""
    if all(shutil.which(daemon) for daemon in DAEMONS):
        return
    print("installing slurm-wlm", flush=True)
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm"]):
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"error: cannot install slurm-wlm: {done.stderr.strip()[-500:]}\nhint: these tests need root on a machine with apt, or Slurm itself")


def wait_for(what: str, is_so: Callable[[], bool], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.1)


def free_port(count: int) -> int:
    """The first of so many neighbouring ports that nothing listens on."""
    for first in range(21000, 60000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise AssertionError("no free ports")


class Cluster:
    """`with Cluster() as cluster:` ... everything ends with the block."""

    def __init__(self) -> None:
        install()
        # Told to end, the block ends as well.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.folder = Path(tempfile.mkdtemp(prefix="rzero-slurm-"))
        host, port = socket.gethostname().split(".")[0], free_port(8)
        conf = self.folder / "slurm.conf"
        conf.write_text(CONF.format(host=host, folder=self.folder, port=port, first=port + 1, last=port + 3))
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        ours = ("RZERO_", "SLURM_", "SBATCH_", "SQUEUE_", "SHARD_INDEX", "NUM_SHARDS", "RUST_LOG")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(ours) or name == "RZERO_JUST"}
        self.env["SLURM_CONF"] = str(conf)

    def __enter__(self) -> Cluster:
        try:
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            wait_for("three idle nodes", lambda: self.ask("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() == ["idle"] * 3)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", "--user", "root"], env=self.env, capture_output=True, timeout=30)
        for name in ("slurmctld", *(f"slurmd-{node}" for node in NODES)):
            self.kill_daemon(name, signal.SIGKILL)
        # Whatever a task left behind names this cluster in its environment.
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"SLURM_CONF={self.folder}".encode() in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)
            except (OSError, ValueError):
                continue
        if os.environ.get("RZERO_KEEP_CLUSTER"):
            print(f"the cluster's files are kept in {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start_controller(self) -> None:
        subprocess.run(["slurmctld"], env=self.env, check=True, capture_output=True)

    def start_node(self, node: str) -> None:
        subprocess.run(["slurmd", "-N", node], env=self.env, check=True, capture_output=True)

    def pid(self, name: str) -> int | None:
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
            os.kill(pid, 0)
            return pid
        except (OSError, ValueError):
            return None

    def kill_daemon(self, name: str, how: int = signal.SIGKILL) -> None:
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, how)
            wait_for(f"the end of {name}", lambda: self.pid(name) is None, 20)

    def ask(self, *command: str) -> str:
        return subprocess.run(command, env=self.env, capture_output=True, text=True).stdout

    def tasks(self) -> list[list[str]]:
        """Job, index, state, reason and name of everything that is queued."""
        return [line.split("|") for line in self.ask("squeue", "-h", "-r", "-o", "%F|%K|%T|%r|%j").splitlines()]

    def restarts(self, job: str, index: int) -> int:
        """How often a task of an array was queued again."""
        found = re.search(r"Restarts=(\d+)", self.ask("scontrol", "show", "job", "-o", f"{job}_{index}"))
        return int(found[1]) if found else 0

    def wait_until_empty(self, seconds: float = 400.0) -> None:
        wait_for("an empty queue", lambda: not self.tasks(), seconds)

    def just(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        just = self.env.get("RZERO_JUST", "just")
        return subprocess.run([just, *arguments], cwd=ROOT, env=self.env, capture_output=True, text=True)


def lasting_files(run: Path) -> dict[str, str]:
    """Digest of every file of a run that two equal runs share: all but clock readings and what belongs to Slurm."""
    digests = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_file() and not name.startswith("slurm/") and not path.name.startswith(("manifest-", "step_timings-")):
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def differences(run: Path, reference: Path) -> list[str]:
    left, right = lasting_files(run), lasting_files(reference)
    return [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]


def wrappers(folder: Path, binaries: Path) -> None:
    """A folder of stages that a test can hold or break: each does what its file in `folder/orders` says, then runs the real one.

    `orders/STAGE-SHARD`: `hold`, obeyed once, until there is `orders/STAGE-SHARD.go` (it answers a signal as a stage does, with 75), or `fail CODE`, until
    the file is gone.
    """
    orders = folder / "orders"
    orders.mkdir(parents=True)
    for binary in binaries.iterdir():
        if not binary.is_file() or not os.access(binary, os.X_OK) or binary.suffix:
            continue
        script = folder / binary.name
        script.write_text(
            "#!/usr/bin/env bash\n"
            f'order={orders}/{binary.name}-"${{SLURM_ARRAY_TASK_ID:-0}}"\n'
            'if [[ -f $order ]]; then\n'
            '    read -r what code < "$order"\n'
            '    if [[ $what == fail ]]; then echo "error: made to fail" >&2; exit "$code"; fi\n'
            '    mv "$order" "$order.taken" || exit 1\n'
            "    trap 'exit 75' TERM USR1\n"
            '    until [[ -e $order.go ]]; do sleep 0.1 & wait $!; done\n'
            "    trap - TERM USR1\n"
            "fi\n"
            f'exec {binary} "$@"\n'
        )
        script.chmod(0o755)
