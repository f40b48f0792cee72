"""The questions of the workload: 200 sums in words, put into the Solver's conversation of pipelines/domains/words/solver.toml.

The same on every machine. `conversation` writes what `decode render` turns into token ids by the model's own chat template.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Henry"]
THINGS = ["apples", "marbles", "books", "coins", "stamps", "pencils", "shells", "buttons"]


def questions(count: int) -> list[str]:
    """Half plain sums, half short stories, in turn."""
    made = []
    for at in range(count):
        a, b, c = 2 + at * 7 % 19, 1 + at * 5 % 13, 1 + at * 3 % 7
        name, thing = NAMES[at % 8], THINGS[at // 8 % 8]
        if at % 2 == 0:
            made.append(f"What is {a} + {b} - {c}?")
        else:
            made.append(f"{name} has {a} {thing} and buys {b} more. Then {name} gives {c} away. How many {thing} does {name} have left?")
    return made


def conversation(prompt: Path, target: Path, count: int) -> None:
    """Writes the turns of a prompt file and the questions that go into its last one."""
    turns = tomllib.loads(prompt.read_text())["messages"]
    messages = [[turn["role"], turn["content"].replace("{{ question }}", "{question}")] for turn in turns]
    target.write_text(json.dumps({"messages": messages, "questions": questions(count)}))
