"""Measures ours and the peers side by side, and writes what the README's table is made from.

    just bench                          everything, into data/benchmarks/DATE-MACHINE; goes on where it was interrupted
    just bench decode iteration         only these experiments
    just bench --list                   what there is
    just bench --quick decode           once, and less of it: does it run at all?
    just bench --render                 only make summary.json and table.md anew from the raw runs
    just bench --again decode           measure once more what is there
    just bench --render --readme        put the table into the README

Ours and the peer are run in turn, round by round. Each run of a command leaves `raw/EXPERIMENT/ROUND-SIDE-NAME.json`. A peer that is not installed
is marked so and does not fail anything; `bash pipelines/bench/setup` installs them. Environment: RZERO_BENCH_VENV (the peers' Python
environment), RZERO_BENCH_MODEL (SmolLM2's folder), RZERO_BENCH_CARGO (flags of the build of the benches).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import machine
import measure
import prompts
import render
import summary
from cases import EXPERIMENTS, Command, Experiment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# Executables that cargo builds and whose places it tells.
BENCHES = ("{decode}", "{step}", "{repetition}", "{table_stages}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """Where everything lies, and which of it can be run."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
        self.venv = Path(os.environ.get("RZERO_BENCH_VENV", self.target / "bench-peers")).absolute()
        self.cache = self.target / "bench-cache"
        self.model = Path(os.environ.get("RZERO_BENCH_MODEL", ROOT / "data/models/smollm2")).resolve()
        self.folder = args.out or ROOT / "data/benchmarks" / f"{machine.datetime.date.today()}-{machine.slug()}"
        self.modules: dict[str, bool] = {}
        self.words: dict[str, str] = {}

    def prepare(self, experiments: list[Experiment]) -> None:
        """Builds the benches, and looks for what the commands need."""
        self.cache.mkdir(parents=True, exist_ok=True)
        python = self.venv / "bin/python"
        self.words = {
            "bin": str(self.args.bin or self.target / "release"), "python": str(python if python.is_file() else sys.executable), "model": str(self.model),
            "tiny": str(ROOT / "data/models/tiny"), "threads": str(self.args.threads), "here": str(HERE), "cache": str(self.cache),
            "just": self.args.just,
        }  # fmt: skip
        argv = [word for experiment in experiments for command in (*experiment.ours, *experiment.peer) for word in command.argv]
        given = dict(word.split("=", 1) for word in self.args.executable)
        if any(word in BENCHES and word.strip("{}") not in given for word in argv):
            self.words |= built_benches()
        self.words |= given
        if "{cache}/prompts.json" in argv and (self.model / "config.json").is_file():
            self.render_prompts()

    def render_prompts(self) -> None:
        conversation = self.cache / "conversation.json"
        prompts.conversation(ROOT / "pipelines/domains/words/solver.toml", conversation, 200)
        command = [self.words["decode"], "render", "--model", str(self.model), "--file", str(conversation)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        measure.write_whole(self.cache / "prompts.json", text)

    def fill(self, word: str, experiment: Experiment) -> str:
        for name, value in self.words.items():
            word = word.replace("{" + name + "}", value)
        if self.args.quick:
            word = dict(experiment.quick).get(word, word)
        return dict(pair.split("=", 1) for pair in self.args.replace).get(word, word)

    def missing(self, command: Command, experiment: Experiment) -> str:
        """What keeps a command from running; empty where nothing does."""
        for module in command.modules:
            if module not in self.modules:
                probe = [self.words["python"], "-c", f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)"]
                try:
                    self.modules[module] = subprocess.run(probe, capture_output=True, check=False).returncode == 0
                except OSError:
                    self.modules[module] = False
            if not self.modules[module]:
                return module
        paths = [Path(self.fill(path, experiment)) for path in command.paths]
        absent = [str(path) for path in paths if not path.exists()]
        words = [word for word in command.argv if word in BENCHES and word.strip("{}") not in self.words]
        scripts = [word for word in command.argv if word.startswith("{here}/") and not (HERE / word.removeprefix("{here}/")).is_file()]
        return ", ".join(absent + words + scripts)

    def run_command(self, experiment: Experiment, command: Command, side: str, number: int) -> None:
        path = self.folder / "raw" / experiment.name / f"{number}-{side}-{re.sub('[^a-z0-9_]+', '-', command.name)}.json"
        if path.is_file() and not self.args.again:
            return
        record: dict[str, Any] = {"round": number, "side": side, "name": command.name, "exit_code": 1, "lines": []}
        missing = self.missing(command, experiment)
        if missing:
            say(f"  {command.name}: left out, there is no {missing}")
            measure.write_whole(path, json.dumps(record | {"missing": missing}, indent=1) + "\n")
            return
        threads = command.threads or self.args.threads
        argv = [self.fill(word, experiment) for word in command.argv]
        outcome = measure.run([*self.args.through.split(), *argv], threads, ROOT, self.peer_environment())
        lines = results(command, outcome, threads)
        # Paths of this machine tell nobody anything.
        shown = [self.without_places(word) for word in argv]
        record |= {"argv": shown, "exit_code": outcome.exit_code, "seconds": outcome.seconds, "max_rss_mb": outcome.max_rss_mb, "lines": lines}
        if outcome.exit_code != 0:
            record["tail"] = outcome.tail
        say(f"  {command.name}: {outcome.seconds:.0f} s" + (f", stopped with {outcome.exit_code}:\n{outcome.tail}" if outcome.exit_code else ""))
        # What failed is shown, and tried again by the next call.
        if outcome.exit_code == 0:
            measure.write_whole(path, json.dumps(record, indent=1) + "\n")

    def without_places(self, word: str) -> str:
        places = {self.venv: "PEERS", self.target: "TARGET", self.model: "MODEL", Path(self.words["bin"]).resolve(): "BIN", ROOT: "."}
        for place, name in places.items():
            word = word.replace(str(place), name)
        return Path(word).name if word.startswith("/") else word

    def peer_environment(self) -> dict[str, str]:
        library = self.venv / "lib/llama.cpp"
        path = os.pathsep.join([str(Path(self.args.just).parent), os.environ.get("PATH", "")])
        return {"PATH": path} | ({"LLAMA_CPP_LIB_PATH": str(library)} if library.is_dir() else {})

    def run(self, experiment: Experiment) -> None:
        rounds = 1 if self.args.quick else self.args.rounds or experiment.rounds
        say(f"{experiment.name}: {experiment.title}")
        for number in range(1, rounds + 1):
            for side, commands in (("ours", experiment.ours), ("peer", experiment.peer)):
                for command in commands:
                    if self.args.only in ("", side) and re.search(self.args.commands, command.name):
                        self.run_command(experiment, command, side, number)

    def conclude(self) -> None:
        measure.write_whole(self.folder / "machine.json", json.dumps(machine.describe(self.venv), indent=1) + "\n")
        summaries = summary.summarise(self.folder, self.args.threads)
        measure.write_whole(self.folder / "summary.json", json.dumps(summaries, indent=1) + "\n")
        text = render.render(self.folder)
        measure.write_whole(self.folder / "table.md", text)
        if self.args.readme:
            render.put_into(ROOT / "README.md", text)
        print(text)


def results(command: Command, outcome: measure.Outcome, threads: int) -> list[measure.Line]:
    """What a command printed, as lines of one form."""
    lines = []
    for line in outcome.lines:
        if "case" in line and "value" in line:
            lines.append(line)
        for field, case, unit, factor in command.reads:
            if field in line:
                lines.append(line | {"case": case, "value": line[field] * factor, "unit": unit, "setting": str(line.get("name", command.name)), "threads": threads})
    return lines


def built_benches() -> dict[str, str]:
    """Builds the benches as the tests are built, so that every dependency is shared, and tells where they lie."""
    flags = os.environ.get("RZERO_BENCH_CARGO", "--workspace --lib --test * --benches").split()
    command = ["cargo", "test", "--release", "--no-run", "--message-format=json", *flags]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if output.returncode != 0:
        raise SystemExit("the benches do not compile")
    found = {}
    for line in output.stdout.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("reason") == "compiler-artifact" and message["target"]["kind"] == ["bench"] and message.get("executable"):
            found[message["target"]["name"]] = message["executable"]
    return found


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help="which; all where none is named")
    parser.add_argument("--list", action="store_true", help="print what there is, and run nothing")
    parser.add_argument("--quick", action="store_true", help="one round, and less of it, into a folder of its own")
    parser.add_argument("--again", action="store_true", help="measure what is there once more")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md as well")
    parser.add_argument("--only", choices=["", "ours", "peer"], default="", help="one side")
    parser.add_argument("--commands", default="", help="commands whose names match this pattern")
    parser.add_argument("--rounds", type=int, default=0, help="in place of the experiment's own number")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="results folder")
    parser.add_argument("--bin", type=Path, help="folder of the stage binaries")
    parser.add_argument("--just", default=os.environ.get("RZERO_JUST", shutil.which("just") or "just"))
    parser.add_argument("--executable", action="append", default=[], metavar="NAME=PATH", help="a bench that is built already")
    parser.add_argument("--replace", action="append", default=[], metavar="WORD=WORD", help="a word of the commands, to measure less")
    parser.add_argument("--through", default="", help="what each measured command is run through, for example `nice -n -5`, or a queue")
    return parser.parse_args(words)


def main(words: list[str]) -> None:
    args = parse(words)
    if args.list:
        for experiment in EXPERIMENTS:
            sides = [", ".join(command.name for command in commands) for commands in (experiment.ours, experiment.peer)]
            print(f"{experiment.name:16} {experiment.title}\n{'':16} ours: {sides[0]}; peer: {sides[1] or 'none'}")
        return
    names = [experiment.name for experiment in EXPERIMENTS]
    unknown = [name for name in args.experiments if name not in names]
    if unknown:
        raise SystemExit(f"error: there is no experiment `{unknown[0]}`\nhint: choose among {' '.join(names)}")
    chosen = [experiment for experiment in EXPERIMENTS if not args.experiments or experiment.name in args.experiments]
    if args.quick and args.out is None:
        args.out = ROOT / "data/benchmarks/quick"
    bench = Bench(args)
    if not args.render:
        bench.prepare(chosen)
        for experiment in chosen:
            bench.run(experiment)
    bench.conclude()


if __name__ == "__main__":
    main(sys.argv[1:])
