"""Raw runs -> summary.json: one object a case, the median of the best setting of each side, and their ratio.

Above 1 a ratio says that ours is better, whatever the unit. A side may have been measured in several settings (weight formats, kinds of attention): the
best of each is taken, by the median over rounds. `ratio_low` and `ratio_high` are the smallest and largest ratio of one round.
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from cases import CASES, Case, Lines
from measure import Line

Summary = dict[str, Any]

LOWER_IS_BETTER = ("s", "ms", "MB", "%")


def raw_runs(folder: Path, experiment: str) -> list[dict[str, Any]]:
    """All runs of an experiment that are there."""
    return [json.loads(path.read_text()) for path in sorted((folder / "raw" / experiment).glob("*.json"))]


def by_setting(runs: list[dict[str, Any]], side: str, wanted: Lines) -> dict[str, dict[int, Line]]:
    """setting -> round -> line, of the lines that a case asks for. Where a round has several of a setting the last one stands."""
    found: dict[str, dict[int, Line]] = {}
    for run in runs:
        if run["side"] != side or run["exit_code"] != 0:
            continue
        for line in run["lines"]:
            setting = str(line.get("setting", ""))
            if line["case"] == wanted.case and re.search(wanted.setting, setting):
                found.setdefault(setting, {})[run["round"]] = line
    return found


def best(found: dict[str, dict[int, Line]], unit: str) -> tuple[str, dict[int, Line]] | None:
    """The setting with the best median."""
    if not found:
        return None
    sign = -1 if unit in LOWER_IS_BETTER else 1
    return max(found.items(), key=lambda item: sign * median(item[1]))


def median(rounds: dict[int, Line]) -> float:
    return statistics.median(float(line["value"]) for line in rounds.values())


def ratio(ours: float, peer: float, unit: str) -> float:
    return peer / ours if unit in LOWER_IS_BETTER else ours / peer


def share_of_peak(runs: list[dict[str, Any]], rounds: dict[int, Line]) -> dict[int, Line]:
    """Tokens a second as a share, in per cent, of the products that the machine was measured to do in the same rounds."""
    peaks = best(by_setting(runs, "ours", Lines("peak")), "GF/s")
    if peaks is None:
        return {}
    # The highest peak is the machine's; a disturbed round must not make ours look better.
    peak = max(float(line["value"]) for line in peaks[1].values())
    return {
        number: line | {"value": 100 * float(line["value"]) * line["flops_per_token"] / 1e9 / peak} for number, line in rounds.items()
    }


def summarise_case(case: Case, runs: list[dict[str, Any]], threads: int) -> Summary:
    """One object of the summary; what was not measured is null."""
    summary: Summary = {
        "case": case.name, "title": case.title, "ours": None, "peer": None, "peer_name": case.peer_name, "unit": case.unit, "ratio": None,
        "runs": 0, "threads": case.threads or threads, "target": case.target.as_json(), "met": None,
    }  # fmt: skip
    ours = best(by_setting(runs, "ours", case.ours), case.unit)
    if ours is None:
        return summary | {"status": "not measured"}
    setting, rounds = ours
    if case.unit == "% of peak":
        rounds = share_of_peak(runs, rounds)
    if not rounds:
        return summary | {"status": "not measured"}
    summary |= {"ours": round_to(median(rounds)), "ours_setting": setting, "runs": len(rounds), "status": "measured"}
    notes = [line["note"] for line in rounds.values() if "note" in line]
    if case.peer is not None:
        peer = best(by_setting(runs, case.peer_side, case.peer), case.unit)
        if peer is None:
            missing = {run["missing"] for run in runs if run.get("missing")}
            return summary | {"status": f"peer missing: {', '.join(sorted(missing))}" if missing else "peer not measured"}
        peer_setting, peer_rounds = peer
        notes += [line["note"] for line in peer_rounds.values() if "note" in line]
        summary |= {"peer": round_to(median(peer_rounds)), "peer_setting": peer_setting, "peer_runs": len(peer_rounds)}
        summary["ratio"] = round_to(ratio(median(rounds), median(peer_rounds), case.unit))
        both = sorted(rounds.keys() & peer_rounds.keys())
        ratios = [ratio(float(rounds[at]["value"]), float(peer_rounds[at]["value"]), case.unit) for at in both]
        if ratios:
            summary |= {"ratio_low": round_to(min(ratios)), "ratio_high": round_to(max(ratios))}
    if notes:
        summary["note"] = notes[0]
    summary["met"] = case.target.is_met(summary["ours"], summary["ratio"])
    return summary


def round_to(value: float) -> float:
    """Four digits: more were not measured."""
    return float(f"{value:.4g}")


def summarise(folder: Path, threads: int) -> list[Summary]:
    """Every case of which something was measured, in the order of the cases."""
    summaries = []
    for case in CASES:
        runs = raw_runs(folder, case.experiment)
        if runs:
            summaries.append(summarise_case(case, runs, threads))
    return summaries
