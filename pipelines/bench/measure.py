"""Runs one command with pinned threads and keeps all that it printed.

A command prints lines of JSON, `{"case", "setting", "value", "unit", ...}`, among other text. One run of one command is one file, written whole or
not at all: a file that is there is a run that is not repeated. Reads and writes the results folder only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one command."""

    exit_code: int
    seconds: float
    max_rss_mb: float
    # All objects that it printed.
    lines: list[Line]
    tail: str


def environment(threads: int) -> dict[str, str]:
    """The caller's environment, with every library told how many threads there are."""
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "WANDB_MODE": "disabled"}
    # A run that the caller has in mind is none of ours.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RZERO_") or name.startswith("RZERO_BENCH")}
    return kept | dict.fromkeys(names, str(threads)) | {"RZERO_THREADS": str(threads)} | quiet


def json_objects(text: str) -> list[Line]:
    """The lines of a text that are objects."""
    objects = []
    for text_line in text.splitlines():
        if text_line.startswith("{"):
            with contextlib.suppress(ValueError):
                objects.append(json.loads(text_line))
    return objects


def run(argv: list[str], threads: int, folder: Path, extra: dict[str, str] | None = None) -> Outcome:
    """Runs a command on the first `threads` cores; what it writes to stderr is kept for its tail."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    start = time.perf_counter()
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=environment(threads) | (extra or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509 -- no thread of ours is running
    ) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        # The one call that tells the memory of this child alone.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    return Outcome(process.returncode, seconds, usage.ru_maxrss / 1024, json_objects(text), text[-4000:])


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it appears with all its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(text)
    temporary.replace(path)
