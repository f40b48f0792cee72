"""summary.json -> the table of the README, in Markdown: ratios, what was asked of them, and where a target is missed why, and what comes next.

Reasons and next ideas are written by hand into `notes.toml` of the results folder: a table of the case's name with `reason` and `next`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

Summary = dict[str, Any]


def number(value: float) -> str:
    """Three digits, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def asked(target: dict[str, float] | None, unit: str) -> str:
    if not target:
        return ""
    if "ratio" in target:
        return f"{number(target['ratio'])}x"
    if "at_most" in target:
        return f"at most {number(target['at_most'])} {unit}"
    return f"at least {number(target['at_least'])} {unit}"


def measured(summary: Summary) -> str:
    if summary["ratio"] is None:
        # Without a peer there is no ratio; then it is a share, or a limit that was set in a unit.
        return f"{number(summary['ours'])} {summary['unit']}" if summary["peer_name"] is None else summary["status"]
    low, high = summary.get("ratio_low"), summary.get("ratio_high")
    spread = f" ({number(low)} to {number(high)})" if low is not None and summary["runs"] > 1 else ""
    return f"**{number(summary['ratio'])}x**{spread}"


def verdict(summary: Summary) -> str:
    return {True: "yes", False: "no", None: ""}[summary["met"]]


def peer_cell(summary: Summary) -> str:
    if summary["peer_name"] is None:
        return ""
    settings = [summary.get("ours_setting"), summary.get("peer_setting")]
    if not all(settings):
        return summary["peer_name"]
    return f"{summary['peer_name']} ({settings[0]} / {settings[1]})"


def table(summaries: list[Summary]) -> str:
    rows = ["| what | ours / peer | against (setting ours / theirs) | asked | met | threads | rounds |", "|---|---|---|---|---|---|---|"]
    for summary in summaries:
        if summary["ours"] is None or summary["status"] == "peer not measured":
            continue
        cells = [
            summary["title"], measured(summary), peer_cell(summary), asked(summary["target"], summary["unit"]), verdict(summary),
            str(summary["threads"]), str(summary["runs"]),
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def read_notes(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / "notes.toml"
    return tomllib.loads(path.read_text()) if path.is_file() else {}


def shortfalls(summaries: list[Summary], notes: dict[str, dict[str, str]]) -> str:
    """One line for each target that is missed, with what stands in the notes; and what else a case says of itself."""
    lines = []
    for summary in summaries:
        note = notes.get(summary["case"], {})
        if summary["met"] is False:
            why = note.get("reason", "the reason is not known yet")
            then = f" Next: {note['next']}" if "next" in note else ""
            lines.append(f"- **{summary['title']}** misses {asked(summary['target'], summary['unit'])}: {why}{then}")
        elif "reason" in note:
            lines.append(f"- {summary['title']}: {note['reason']}")
        if "note" in summary:
            lines.append(f"- {summary['title']}: {summary['note']}")
    return "\n".join(lines) + ("\n" if lines else "")


def render(folder: Path) -> str:
    """The whole text of a results folder."""
    summaries = json.loads((folder / "summary.json").read_text())
    machine = json.loads((folder / "machine.json").read_text())
    versions = ", ".join(f"{name} {version}" for name, version in machine["peers"].items())
    head = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['simd']}; commit {machine['commit']}; {machine['date']}.\n"
    peers = f"Peers: {versions}.\n" if versions else ""
    below = shortfalls(summaries, read_notes(folder))
    return "\n".join(part for part in [head + peers, table(summaries), below] if part)


BEGIN, END = "<!-- table of just bench -->", "<!-- end of table -->"


def put_into(readme: Path, text: str) -> None:
    """Replaces what stands between the two marks of a file."""
    before, found, rest = readme.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"{readme} has no `{BEGIN}` ... `{END}`")
    readme.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}")
