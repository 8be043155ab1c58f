"""Make the page docs/speed.md from the records in benchmarks/results/: tables and a picture.

    python -m benchmarks.speed            print the page
    python -m benchmarks.speed --write    write docs/speed.md and docs/images/speed.png

The page has the newest record of every suite and machine that was not made with --only.
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
}  # suites in the order of the page
INTRODUCTION = """\
# Speed

Made by `python -m benchmarks.speed --write` from the records in `benchmarks/results/`; do not edit. `make bench` makes
such a record on your machine, `make gpu` on a machine with a GPU.

Results are checked before anything is timed: losses and gradients against each other or float64, neighbours of 200 rows
against float64. The candidates then take turns in one process. "Times faster" is the median over rounds of (rival's
time / our time) within a round; below 1 the rival is faster. The recall of an approximate rival is given beside it.
"Share" is the rate of the multiplications and additions that the task needs, divided by the rate of torch's matrix
product in the given number format, measured in the same minute on the same machine. Memory is the peak above the
inputs, including the results, with each candidate in its own process.
"""


def records(folder: Path = RESULTS) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (suite, record) for the newest whole record of every suite and machine, in the order of the page."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    loaded = [json.loads(path.read_text(encoding="utf-8")) | {"name": path.name} for path in folder.glob("*.json")]
    for record in sorted(
        (record for record in loaded if "suites" in record), key=lambda record: record["provenance"]["time"]
    ):
        if "--only" not in record["provenance"]["command"]:
            newest |= {(suite, machine(record)): record for suite in record["suites"]}
    for (suite, _), record in sorted(newest.items(), key=lambda item: (list(TITLES).index(item[0][0]), item[0][1])):
        yield suite, record


def machine(record: dict[str, Any]) -> str:
    """Return the GPUs of a record's machine, or else its processor."""
    facts = record["provenance"]["machine"]
    return ", ".join(facts["gpus"]) or f"{facts['processor']}, {facts['cores']} cores"


def times_faster(row: dict[str, Any]) -> dict[str, float]:
    """Return how many times faster our call is than each other candidate.

    A record of a GPU has medians rather than ratios within a round.
    """
    our_time = row["milliseconds"][OURS]
    ratios = row.get("ratio") or {name: other / our_time for name, other in row["milliseconds"].items()}
    return {name: ratio for name, ratio in ratios.items() if name != OURS}


def rivals(row: dict[str, Any]) -> dict[str, float]:
    """Return ``times_faster`` without our other backends and options."""
    ratios = times_faster(row) if "milliseconds" in row else {}
    return {name: ratio for name, ratio in ratios.items() if not name.startswith(OURS)}


def share(row: dict[str, Any], record: dict[str, Any]) -> str:
    """Return the share of the machine's matrix rate that our call reaches, or nothing for a task without products."""
    if "share_of_matrix_rate" in row:
        return f"{row['share_of_matrix_rate']:.0%}"
    if not row["operations_per_second"]:
        return ""
    return f"{row['operations_per_second'] / record['gemm_rates'][row['rate']]:.0%} of {row['rate']}"


def table(rows: list[dict[str, Any]], record: dict[str, Any]) -> list[str]:
    """Return the lines of a table of the page."""
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
        others += [f"{name}: not timed, {reason}" for name, reason in row.get("not_timed", {}).items()]
        memory = [f"**{row['megabytes'][OURS]:.0f}**"] if OURS in row["megabytes"] else []
        memory += [f"{name} {megabytes:.0f}" for name, megabytes in row["megabytes"].items() if name != OURS]
        time = row["milliseconds"][OURS]
        cells = [
            row["case"],
            f"{time / 1e3:,.1f} s" if time >= 1e4 else f"{time:,.0f} ms" if time >= 100 else f"{time:.2g} ms",
            share(row, record),
            "<br>".join(others),
            "<br>".join(memory),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def origin(record: dict[str, Any]) -> str:
    """Return the machine, versions and commit of a record in a sentence."""
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


def page(suite_records: list[tuple[str, dict[str, Any]]]) -> str:
    """Return the text of the page."""
    lines = [INTRODUCTION, "![How many times faster than each rival, by case](images/speed.png)", ""]
    for suite, record in suite_records:
        lines += [f"## {TITLES[suite]}", "", origin(record), "", *table(record["suites"][suite], record), ""]
    return "\n".join(lines)


def picture(suite_records: list[tuple[str, dict[str, Any]]]) -> Picture:
    """Return a picture with a panel for each record: rivals' times over ours, on a logarithmic axis with 1 marked."""
    from matplotlib.ticker import LogLocator, NullFormatter

    styles = list(zip(ramp(len(MARKERS), dark=False), MARKERS, strict=True))
    panels = [
        (suite, record, [row for row in record["suites"][suite][::-1] if rivals(row)])
        for suite, record in suite_records
    ]
    drawn: list[Picture] = []
    height = 1.2 + 0.42 * max(len(rows) for _, _, rows in panels)
    with canvas(drawn, "speed", (5 * len(panels), height)) as drawing:
        axes = drawing.subplots(1, len(panels), squeeze=False)
        for ax, (suite, record, rows) in zip(axes[0], panels, strict=True):
            names = list(dict.fromkeys(name for row in rows[::-1] for name in rivals(row)))
            for name, (colour, marker) in zip(names, itertools.cycle(styles), strict=False):
                places = [place for place, row in enumerate(rows) if name in rivals(row)]
                approximate = any(name in rows[place].get("recall", {}) for place in places)
                ax.scatter(
                    [rivals(rows[place])[name] for place in places],
                    places,
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
    """Print the page, and write it with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/speed.md and its picture")
    suite_records = list(records())
    text = page(suite_records)
    if parser.parse_args().write:
        write_atomically(PAGE, lambda path: path.write_text(text, encoding="utf-8"))
        drawn = picture([(suite, record) for suite, record in suite_records if len(record["suites"][suite]) > 2])
        write_atomically(PICTURE, lambda path: path.write_bytes(drawn.png))
    print(text)


if __name__ == "__main__":
    main()
