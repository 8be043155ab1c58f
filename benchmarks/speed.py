"""The speed page: what the records in benchmarks/results/ say, as tables and a picture.

    python -m benchmarks.speed            the page
    python -m benchmarks.speed --write    docs/speed.md and docs/images/speed.png

Of every suite and machine the newest record counts that was not made with --only.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modalign.files.atomic import write_atomically
from modalign.report.figures.pictures import Picture
from modalign.report.figures.stills import canvas
from modalign.report.palette import ramp

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, PICTURE = ROOT / "benchmarks" / "results", ROOT / "docs" / "speed.md", ROOT / "docs/images/speed.png"
OURS = "modalign"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
TITLES = {
    "info_nce": "InfoNCE, forward and backward (n x d)",
    "other_losses": "Other losses, forward and backward (n x d)",
    "knn": "Exact k-nearest neighbours (n x d, k = 10)",
    "alignment": "Mutual k-NN alignment (n x d, k = 10)",
    "sweeps": "Sweeps",
}  # in the order of the page
INTRODUCTION = """\
# Speed

Made by `python -m benchmarks.speed --write` from the records in `benchmarks/results/`; do not edit. `make bench` makes
such a record on your machine, `make gpu` on one with a GPU.

Answers are checked before anything is timed: losses and gradients against each other or float64, neighbours of 200
rows against float64. Rivals then take turns inside one process. "Times faster" is the median over rounds of (their time
/ ours) within a round: below 1 they are faster. An approximate rival has its recall beside it. "Share" is the rate of
the multiplications and additions that the task needs, over the rate of torch's own matrix product in the number format
named, measured in the same minute on the same machine. Memory is the peak above the inputs, results included, each
rival in a process of its own.
"""


def records(folder: Path = RESULTS) -> Iterator[tuple[str, dict[str, Any]]]:
    """(suite, record): the newest whole record of every suite on every machine, suites in the order of the page."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    read = [json.loads(path.read_text(encoding="utf-8")) | {"name": path.name} for path in folder.glob("*.json")]
    for record in sorted((record for record in read if "suites" in record), key=lambda one: one["provenance"]["time"]):
        if "--only" not in record["provenance"]["command"]:
            found |= {(suite, machine(record)): record for suite in record["suites"]}
    for (suite, _), record in sorted(found.items(), key=lambda of: (list(TITLES).index(of[0][0]), of[0][1])):
        yield suite, record


def machine(record: dict[str, Any]) -> str:
    has = record["provenance"]["machine"]
    return ", ".join(has["gpus"]) or f"{has['processor']}, {has['cores']} cores"


def times_faster(row: dict[str, Any]) -> dict[str, float]:
    """Than every other way. A run on a GPU keeps medians, not what was seen within a round."""
    own = row["milliseconds"][OURS]
    ratios = row.get("ratio") or {name: other / own for name, other in row["milliseconds"].items()}
    return {name: ratio for name, ratio in ratios.items() if name != OURS}


def rivals(row: dict[str, Any]) -> dict[str, float]:
    """``times_faster`` without other ways of our own."""
    there = times_faster(row) if "milliseconds" in row else {}
    return {name: ratio for name, ratio in there.items() if not name.startswith(OURS)}


def share(row: dict[str, Any], record: dict[str, Any]) -> str:
    if "share_of_matrix_rate" in row:
        return f"{row['share_of_matrix_rate']:.0%}"
    if not row["operations_per_second"]:
        return ""
    return f"{row['operations_per_second'] / record['gemm_rates'][row['rate']]:.0%} of {row['rate']}"


def table(rows: list[dict[str, Any]], record: dict[str, Any]) -> list[str]:
    lines = ["| case | time | share | times faster than | MB above inputs |", "|---|---|---|---|---|"]
    for row in rows:
        if "milliseconds" not in row:
            lines.append(f"| {row['case']} | {row.get('failed') or row.get('skipped')} | | | |")
            continue
        recall = row.get("recall", {})
        others = [
            f"{name} **{ratio:.2f}**" + (f" (recall {recall[name]:.3f})" if name in recall else "")
            for name, ratio in times_faster(row).items()
        ]
        others += [f"{name}: not timed, {why}" for name, why in row.get("not_timed", {}).items()]
        held = [f"**{row['megabytes'][OURS]:.0f}**"] if OURS in row["megabytes"] else []
        held += [f"{name} {held:.0f}" for name, held in row["megabytes"].items() if name != OURS]
        time = row["milliseconds"][OURS]
        cells = [
            row["case"],
            f"{time / 1e3:,.1f} s" if time >= 1e4 else f"{time:,.0f} ms" if time >= 100 else f"{time:.2g} ms",
            share(row, record),
            "<br>".join(others),
            "<br>".join(held),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def made(record: dict[str, Any]) -> str:
    """Where a record comes from, in a sentence."""
    facts = record["provenance"]
    versions = ", ".join(
        f"{name} {facts['versions'][name]}" for name in ("torch", "triton") if name in facts["versions"]
    )
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in record.get("gemm_rates", {}).items())
    rates = f" Matrix rates by torch, GFLOP/s: {rates}." if rates else ""
    note = f" {record['note'][0].upper()}{record['note'][1:]}." if "note" in record else ""
    return (
        f"{machine(record)}; {versions}; commit {facts['modalign_commit'][:7]}, {facts['time'][:10]}; "
        f"`{record['name']}`.{rates}{note}"
    )


def page(found: list[tuple[str, dict[str, Any]]]) -> str:
    lines = [INTRODUCTION, "![How many times faster than each rival, by case](images/speed.png)", ""]
    for suite, record in found:
        lines += [f"## {TITLES[suite]}", "", made(record), "", *table(record["suites"][suite], record), ""]
    return "\n".join(lines)


def picture(found: list[tuple[str, dict[str, Any]]]) -> Picture:
    """A panel for each record: rivals' times over ours, on a logarithmic axis with 1 marked."""
    from matplotlib.ticker import LogLocator, NullFormatter

    looks = list(zip(ramp(len(MARKERS), dark=False), MARKERS, strict=True))
    panels = [(suite, record, [row for row in record["suites"][suite][::-1] if rivals(row)]) for suite, record in found]
    drawn: list[Picture] = []
    height = 1.2 + 0.42 * max(len(rows) for _, _, rows in panels)
    with canvas(drawn, "speed", (5 * len(panels), height)) as drawing:
        axes = drawing.subplots(1, len(panels), squeeze=False)
        for ax, (suite, record, rows) in zip(axes[0], panels, strict=True):
            names = list(dict.fromkeys(name for row in rows[::-1] for name in rivals(row)))
            for name, (colour, marker) in zip(names, itertools.cycle(looks), strict=False):
                there = [at for at, row in enumerate(rows) if name in rivals(row)]
                approximate = any(name in rows[at].get("recall", {}) for at in there)
                ax.scatter(
                    [rivals(rows[at])[name] for at in there],
                    there,
                    s=32,
                    marker=marker,
                    zorder=3,
                    edgecolors=colour,
                    facecolors="none" if approximate else colour,
                    label=f"{name}{' (approximate)' * approximate}",
                )
            ax.axvline(1, color="#5f6368", lw=1)
            ax.set(xscale="log", title=f"{TITLES[suite]}\n{machine(record)}", xlabel="times faster than")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_yticks(range(len(rows)), [row["case"] for row in rows])
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=7, ncols=2)
    return drawn[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/speed.md and its picture")
    found = list(records())
    text = page(found)
    if parser.parse_args().write:
        write_atomically(PAGE, lambda path: path.write_text(text, encoding="utf-8"))
        drawn = picture([(suite, record) for suite, record in found if len(record["suites"][suite]) > 2])
        write_atomically(PICTURE, lambda path: path.write_bytes(drawn.png))
    print(text)


if __name__ == "__main__":
    main()
