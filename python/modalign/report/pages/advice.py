"""The page of ``modalign advise``: the information, the pairs that are like these, what they showed, and how far to
trust that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modalign.common import provenance
from modalign.experiments.advice import Advice, Expectation, regime_sentence, suite, trust
from modalign.report.html import Picture, Table, beside, figure, rounded, write_single_page

__all__ = ["write"]

COLOURS = {"redundancy": "#444b55", "unique_1": "#0072b2", "unique_2": "#c8500a", "synergy": "#b0559b"}
PARTS = {
    "redundancy": "told by both", "unique_1": "by modality 1 alone", "unique_2": "by modality 2 alone",
    "synergy": "only by both together",
}  # fmt: skip
MODALITIES = ("#0072b2", "#c8500a")
READING = (
    ("Information", "What the modalities tell about the label, in bits, estimated from out-of-fold predictions and "
     "corrected for bias; brackets are 95 % bootstrap intervals. What the classifiers do not find is not in it."),
    ("Linear model", "A spiked linear model (arXiv:2606.11190): whether alignment, or prediction of one modality from "
     "the other, would recover what the two share, from the means of the classes and the deviations from them. The "
     "pairs of the suite were trained: where the two disagree, go by those."),
    ("Pairs like these", "The modalities of the packaged suite whose shares of information are nearest: redundant, "
     "unique to this modality, unique to the other, synergistic."),
    ("Expectation", "What those neighbours showed when their strengths were swept. Strengths worth trying: from the "
     "lowest to the highest of their best strengths. “May help”: half a point or more is expected."),
)  # fmt: skip


def write(found: Advice, page: Path, settings: Mapping[str, Any]) -> Path:
    """Write ``page`` and its pictures beside it; returns its path. settings: what the advice is of, by name."""
    parts = found.information.information
    pictures: list[Picture] = []
    _information(pictures, found)
    _neighbours(pictures, found)
    said = found.sentences()
    return write_single_page(
        Path(page),
        beside(Path(page)),
        title="What alignment may be expected to bring",
        eyebrow="Advice before training",
        facts=f"{found.information.n:,} items, {parts.mutual_12:.2f} bits about the label; "
        f"{len({row['case'] for row in suite()})} pairs to compare with",
        sentences=[*said, trust().replace("`", "")],
        tables=[_expectations(found), _parts(found), _like(found)],
        pictures=pictures,
        reading=READING,
        folded=[("Settings", {**settings, **found.information.settings}), ("Provenance", provenance.collect())],
    )


def _expectations(found: Advice) -> Table:
    rows = [
        (
            f"modality {number}", "may help" if one.helps else "little to gain", f"{one.low:g} to {one.high:g}",
            _points(one.gain), f"{_points(one.gain_low)} to {_points(one.gain_high)}", _points(one.loss),
        )
        for number, one in enumerate(found.expectations, 1)
    ]  # fmt: skip
    columns = (
        "of", "alignment", "strengths worth trying", "gain at the best, points", "lowest to highest of the nearest",
        "at the strongest",
    )  # fmt: skip
    return Table("expectations", "What to expect", columns, rows)


def _parts(found: Advice) -> Table:
    values = dataclasses.asdict(found.information.information)
    whole = max(values["mutual_12"], 1e-9)
    rows = []
    for name, text in PARTS.items():
        low, high = found.information.intervals[name]
        rows.append((text, rounded(values[name]), f"{rounded(low)} to {rounded(high)}", f"{values[name] / whole:.0%}"))
    low, high = found.information.intervals["mutual_12"]
    rows.append(("together", rounded(values["mutual_12"]), f"{rounded(low)} to {rounded(high)}", "100%"))
    lead = ""
    if found.regime is not None:
        lead = regime_sentence(found.regime)
    return Table("information", "Information about the label", ("part", "bits", "95 % interval", "share"), rows, lead)


def _like(found: Advice) -> Table:
    rows = []
    for number, one in enumerate(found.expectations, 1):
        for rank, row in enumerate(one.near, 1):
            rows.append((
                f"modality {number}, {rank}", f"{row['case']}, modality {row['modality']}", f"{_share(row):.0%}",
                f"{row['best']:g}", _points(row["gain"]), _points(row["end"]),
            ))  # fmt: skip
    columns = ("neighbour of", "pair of the suite", "redundant", "best strength", "gain, points", "at the strongest")
    return Table("neighbours", "Pairs like these, nearest first", columns, rows)


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "−")


def _share(row: Mapping[str, Any]) -> float:
    return float(row["redundancy"]) / max(float(row["mutual_12"]), 1e-9)


def _information(into: list[Picture], found: Advice) -> None:
    """Three bars: what each modality tells, and what both together do."""
    values = dataclasses.asdict(found.information.information)
    bars = (
        ("modality 1", ("redundancy", "unique_1")),
        ("modality 2", ("redundancy", "unique_2")),
        ("both together", tuple(PARTS)),
    )
    label = "; ".join(f"{text} {rounded(values[name])} bits" for name, text in PARTS.items())
    with figure(into, "information", "What each modality tells about the label", label, 1, 1, height=2.4) as axes:
        ax = axes[0, 0]
        for place, (_, parts) in enumerate(reversed(bars)):
            start = 0.0
            for part in parts:
                ax.barh(place, values[part], 0.6, left=start, color=COLOURS[part])
                if values[part] > 0.06 * values["mutual_12"]:
                    ax.text(start + values[part] / 2, place, f"{values[part]:.2f}", ha="center", va="center",
                            color="white", fontsize=8)  # fmt: skip
                start += values[part]
        ax.set_yticks(range(len(bars)), [name for name, _ in reversed(bars)])
        ax.grid(visible=False, axis="y")
        ax.set(xlabel="bits", xlim=(0, 1.02 * max(values["mutual_12"], 1e-3)))
        patches = [ax.barh(0, 0, color=COLOURS[name], label=text) for name, text in PARTS.items()]
        ax.figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))


def _neighbours(into: list[Picture], found: Advice) -> None:
    """The plane of redundancy and best strength: the suite, the neighbours with their rank, and this pair's place."""
    rows = suite()
    here = _share(dataclasses.asdict(found.information.information))
    label = (
        "best strength against the redundant share for every modality of the suite; "
        f"this pair is {here:.0%} redundant; "
        + "; ".join(f"modality {m}: {one.low:g} to {one.high:g}" for m, one in enumerate(found.expectations, 1))
    )
    highest = max(float(row["best"]) for row in rows)
    with figure(
        into, "neighbours", "Where these pairs lie among those of the suite", label, 1, 2, height=3.8, sharey=True
    ) as axes:
        for number, (ax, one) in enumerate(zip(axes[0], found.expectations, strict=True), 1):
            _plane(ax, one, rows, here, MODALITIES[number - 1])
            ax.set_title(f"modality {number}", loc="left")
            ax.set(xlabel="redundant share of the information", xlim=(-0.03, 1.03))
        ax = axes[0, 0]
        ax.set_yscale("asinh", linear_width=0.05)
        ticks = [tick for tick in (0, 0.03, 0.1, 0.3, 1, 3, 10) if tick <= 1.2 * highest]
        ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set(ylabel="best strength", ylim=(-0.012, 1.4 * highest))
        handles, _ = ax.get_legend_handles_labels()
        ax.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _plane(ax: Any, one: Expectation, rows: Sequence[Mapping[str, Any]], here: float, colour: str) -> None:
    ax.scatter([_share(row) for row in rows], [row["best"] for row in rows], s=16, c="#b9bec6", label="suite", zorder=2)
    near = [(_share(row), float(row["best"])) for row in one.near]
    ax.scatter(*np.array(near).T, s=30, facecolors="none", edgecolors="#1b1d21", lw=1.2, zorder=3,
               label="the nearest, by rank")  # fmt: skip
    ranks: dict[tuple[float, float], list[str]] = {}
    for rank, place in enumerate(near, 1):
        ranks.setdefault(place, []).append(str(rank))
    for place, names in ranks.items():
        ax.annotate(", ".join(names), place, xytext=(4, 4), textcoords="offset points", fontsize=7.5)
    ax.plot([here, here], [one.low, one.high], color=colour, lw=4, alpha=0.35, solid_capstyle="round", zorder=1,
            label="this pair: strengths worth trying")  # fmt: skip
    ax.axvline(here, color=colour, lw=0.9, ls=":", zorder=1)
