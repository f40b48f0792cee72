"""Prints a stage as a job of a batch scheduler: the files beside this one, with `@{word}` filled in. `just render-job` calls it.

    just shards=8 render-job kubernetes solve-sample 1 curriculum
    just shards=8 render-job lsf solve-sample 1 solver 2
    just gradients=8 render-job pbs grpo-gradient 1 solver 2 --update 1

Stages that are cut take shards=N or gradients=N tasks, all others one. Flags behind the place are the stage's own. Resources are those of the profile, section `cluster`. What a cluster calls its things (image, volume claim, job definition, queue) comes from the
environment: RZERO_IMAGE, RZERO_CLAIM, RZERO_JOB_DEFINITION; the queue from `cluster.*.queue`, or RZERO_QUEUE.

Another scheduler needs a file like these. What it must do: run the command once for each shard, with its number in SHARD_INDEX, the number of shards in
NUM_SHARDS, and RZERO_INDEX_BASE=1 where numbers count from 1; start it again on exit code 75.
"""

from __future__ import annotations

import json
import os
import shlex
import string
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA_STAGES = {"vote-label", "filter", "remember", "label-probe", "judge"}
SAMPLING_STAGES = {"challenge-gen", "solve-sample", "verify", "eval"}
# The environment says into how many tasks these are cut.
CUT_BY = dict.fromkeys([*SAMPLING_STAGES, "vote-label", "judge"], "RZERO_SHARDS") | {"grpo-gradient": "RZERO_GRADIENTS"}
WHOLE_STAGES = {"filter", "label-probe", "grpo-step"}


class Template(string.Template):
    delimiter = "@"


def main() -> int:
    files = {file.stem: file for file in HERE.iterdir() if file.suffix in (".yaml", ".json", ".bash")}
    if len(sys.argv) < 5 or sys.argv[1] not in files:
        print(f"error: usage: just render-job {'|'.join(sorted(files))} STAGE ITERATION PHASE [STEP] [FLAGS]", file=sys.stderr)
        return 2
    scheduler, stage, iteration, phase, *flags = sys.argv[1:]
    if stage not in CUT_BY and stage not in WHOLE_STAGES:
        print(f"error: no stage is called `{stage}`\nhint: choose one of {', '.join(sorted(WHOLE_STAGES.union(CUT_BY)))}", file=sys.stderr)
        return 2
    step = [flags.pop(0)] if flags and flags[0].isdigit() else []
    get = subprocess.run([os.environ["RZERO_BIN"] + "/profile-get", "cluster"], cwd=ROOT, capture_output=True, text=True)
    if get.returncode != 0:
        sys.stderr.write(get.stderr)
        return get.returncode
    settings = json.loads(get.stdout)
    asked = settings["data" if stage in DATA_STAGES else "model"]
    is_served = stage in SAMPLING_STAGES and os.environ["RZERO_BACKEND"] != "engine"
    asked["gpus"] *= not is_served
    shards = max(1, int(os.environ[CUT_BY[stage]])) if stage in CUT_BY else 1
    run = os.environ["RZERO_RUN"]
    is_url = "://" in run
    run = run if is_url else os.path.abspath(run)
    command = [os.path.abspath(f"{os.environ['RZERO_BIN']}/{stage}"), "--run", run, "--profile", os.path.abspath(os.environ["RZERO_PROFILE"])]
    command += ["--iteration", iteration, "--phase", phase] + (["--step", step[0]] if step else [])
    command += [word for setting in os.environ.get("RZERO_SET", "").split(";") if setting for word in ("--set", setting)]
    command += ["--threads", str(asked["cpus"])] + (["--device", "cuda"] if asked["gpus"] else [])
    if is_served:
        for flag, variable in (("--backend", "RZERO_BACKEND"), ("--url", "RZERO_URL"), ("--served-model", "RZERO_SERVED_MODEL")):
            command += [flag, os.environ[variable]]
    command += flags
    minutes, queue = asked["minutes"], asked["queue"] or os.environ.get("RZERO_QUEUE", "")
    words = {
        "name": "-".join(("rzero", stage, iteration, phase, *step)),
        "short_name": stage[:15],
        "shards": shards,
        "last": shards - 1,
        "parallel": min(shards, asked["throttle"] or shards),
        "throttle": f"%{asked['throttle']}" if asked["throttle"] else "",
        "restarts": settings["max_restarts"],
        "attempts": min(10, settings["max_restarts"] + 1),
        "cpus": asked["cpus"],
        "gpus": asked["gpus"],
        "memory_gb": asked["memory_gb"],
        "memory_mb": 1024 * asked["memory_gb"],
        "minutes": minutes,
        "seconds": 60 * minutes,
        "clock": f"{minutes // 60:02}:{minutes % 60:02}:00",
        "warning": settings["warning_s"],
        "warning_minutes": -(-settings["warning_s"] // 60),
        "queue": queue or "default",
        "image": os.environ.get("RZERO_IMAGE", "rzero:latest"),
        "claim": os.environ.get("RZERO_CLAIM", "rzero"),
        "definition": os.environ.get("RZERO_JOB_DEFINITION", "rzero"),
        "root": ROOT,
        # A store takes no logs of a scheduler.
        "logs": "." if is_url else run,
        "command": shlex.join(command),
        "command_json": json.dumps(command),
    }
    text = Template(files[scheduler].read_text())
    if scheduler == "aws-batch":
        # Inside a JSON text.
        words["command"] = json.dumps(words["command"])[1:-1]
        job = json.loads(text.substitute(words))
        if shards == 1:
            # An array has at least two jobs.
            del job["arrayProperties"]
        resources = job["containerOverrides"]["resourceRequirements"]
        resources[:] = [resource for resource in resources if resource["value"] != "0"]
        print(json.dumps(job, indent=2))
        return 0
    lines = text.substitute(words).replace(":ngpus=0", "").splitlines()
    # A queue that nobody named is the cluster's own choice, no GPU is not asked for, and one shard is no array for PBS.
    dropped = [f"#{word} -q default" for word in ("PBS", "BSUB")] * (not queue) + ["#PBS -J 0-0", '#BSUB -gpu "num=0"', "nvidia.com/gpu: 0"]
    print("\n".join(line for line in lines if line.strip() not in dropped))
    return 0


if __name__ == "__main__":
    sys.exit(main())
