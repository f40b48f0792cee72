"""What the figures were measured on: CPU, cores, memory, commit, compiler and the versions of the peers. Reads /proc and asks git, rustc and pip."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PEERS = [
    "torch", "transformers", "trl", "llama-cpp-python", "nltk", "scikit-learn", "math-verify", "duckdb", "polars", "numpy", "pyarrow",
]  # fmt: skip


def cpu_field(name: str) -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else "unknown"


def simd() -> str:
    flags = cpu_field("flags").split()
    return next((label for flag, label in [("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX")] if flag in flags), "no AVX")


def said(*command: str) -> str:
    """The first line that a program prints; empty where it is not there."""
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return lines[0].strip() if lines else ""


def memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def slug() -> str:
    """The machine in a few letters, for the name of a folder."""
    words = f"{cpu_field('model name')} {simd()} {len(os.sched_getaffinity(0))} cores"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def peer_versions(venv: Path) -> dict[str, str]:
    folders = [str(path) for path in venv.glob("lib/python*/site-packages")]
    found = {item.metadata["Name"].lower().replace("_", "-"): item.version for item in metadata.distributions(path=folders)}
    return {name: found[name] for name in PEERS if name in found}


def describe(venv: Path) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_field("model name"),
        "cpu_family_model": f"{cpu_field('cpu family')}/{cpu_field('model')}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": memory_gb(),
        "simd": simd(),
        "kernel": os.uname().release,
        "commit": said("git", "rev-parse", "--short", "HEAD") or "unknown",
        "compiler": said("rustc", "--version"),
        "python": said(str(venv / "bin/python"), "--version"),
        "peers": peer_versions(venv),
    }
