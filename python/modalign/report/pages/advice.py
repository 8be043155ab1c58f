"""The page of ``modalign advise``: the information about the label, the most similar pairs of the suite and what their
strengths showed, and how far such advice can be trusted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from modalign.common import provenance
from modalign.experiments.advice import Advice, Expectation, regime_sentence, suite, trust
from modalign.files.paths import expanded
from modalign.report.figures import (
    Figure,
    Key,
    Sheet,
    bars,
    line,
    name_axis,
    panel_layout,
    points,
    stretched,
    stretched_axis,
    title_above,
    upright_line,
    value_axis,
)
from modalign.report.html import Page, write_page
from modalign.report.palette import modality
from modalign.report.words import Table, rounded, signed_points

__all__ = ["write"]

# part of the information: (its name, the role of its colour)
PARTS = {
    "redundancy": ("carried by both modalities", "series-5"),
    "unique_1": ("carried by modality 1 alone", modality(1)),
    "unique_2": ("carried by modality 2 alone", modality(2)),
    "synergy": ("carried only by both together", "series-2"),
}
SHOWN = 0.06  # the least share of the information at which a bar carries its number
READING = (
    (
        "Information",
        "The information that the modalities carry about the label, in bits. It is estimated from out-of-fold "
        "predictions of classifiers and corrected for bias; brackets are 95 % bootstrap intervals. Information that "
        "the classifiers cannot find is not included.",
    ),
    (
        "Linear model",
        "A spiked linear model (arXiv:2606.11190), fitted to the means of the classes and the deviations from them. It "
        "predicts whether alignment, or predicting one modality from the other, recovers what the two share. The "
        "pairs of the suite were trained: where the model and those pairs disagree, trust the pairs.",
    ),
    (
        "Similar pairs",
        "The modalities of the packaged suite whose shares of information are nearest: redundant, unique to this "
        "modality, unique to the other, synergistic.",
    ),
    (
        "Expectation",
        "The results of those neighbours in sweeps over the strength. The strengths worth trying run from the lowest "
        "to the highest of their best strengths. “May help” means that a gain of at least half a point is expected.",
    ),
)


def write(advice: Advice, page: Path, settings: Mapping[str, object]) -> Path:
    """Write the page of an advice with its pictures beside it, and return its path.

    Args:
        advice (Advice): The advice.
        page (Path): The HTML file.
        settings (mapping): The arguments of the advice, such as the names of the files, for the end of the page.
    """
    information = advice.information
    pairs = len({row["case"] for row in suite()})
    return write_page(
        Page(
            title="Expected effect of alignment",
            eyebrow="Advice before training",
            facts=f"{information.n:,} items, {information.information.mutual_12:.2f} bits about the label; "
            f"compared with {pairs} pairs",
            sentences=[
                *advice.sentences(),
                *(f"Of the information: {note}." for note in information.notes),
                trust().replace("`", ""),
            ],
            tables=[_expectations(advice), _parts(advice), _neighbors(advice)],
            sheets=[_information_sheet(advice), _neighbors_sheet(advice)],
            reading=READING,
            folded=[("Settings", {**settings, **information.settings}), ("Provenance", provenance.collect())],
        ),
        expanded(page),
    )


def _expectations(advice: Advice) -> Table:
    rows = [
        (
            f"modality {number}",
            "may help" if expectation.helps else "little to gain",
            f"{expectation.low:g} to {expectation.high:g}",
            signed_points(expectation.gain),
            f"{signed_points(expectation.gain_low)} to {signed_points(expectation.gain_high)}",
            signed_points(expectation.loss),
        )
        for number, expectation in enumerate(advice.expectations, 1)
    ]
    columns = (
        "modality",
        "alignment",
        "strengths worth trying",
        "expected gain at the best strength, points",
        "range among the neighbours, points",
        "expected change at the strongest, points",
    )
    return Table("expectations", "Expected gains", columns, rows)


def _parts(advice: Advice) -> Table:
    values = dataclasses.asdict(advice.information.information)
    whole = max(values["mutual_12"], 1e-9)
    names = {name: text for name, (text, _) in PARTS.items()} | {"mutual_12": "all"}
    rows = []
    for name, text in names.items():
        low, high = advice.information.intervals[name]
        share = "100%" if name == "mutual_12" else f"{values[name] / whole:.0%}"
        rows.append((text, rounded(values[name]), f"{rounded(low)} to {rounded(high)}", share))
    lead = "" if advice.regime is None else regime_sentence(advice.regime)
    columns = ("part", "bits", "95 % interval", "share")
    return Table("information", "Information about the label", columns, rows, lead=lead)


def _neighbors(advice: Advice) -> Table:
    rows = [
        (
            f"modality {number}, rank {rank}",
            f"{row['case']}, modality {row['modality']}",
            f"{_redundant_share(row):.0%}",
            f"{row['best']:g}",
            signed_points(row["gain"]),
            signed_points(row["end"]),
        )
        for number, expectation in enumerate(advice.expectations, 1)
        for rank, row in enumerate(expectation.near, 1)
    ]
    columns = (
        "neighbour of",
        "pair of the suite",
        "redundant share",
        "best strength",
        "gain, points",
        "change at the strongest, points",
    )
    return Table("neighbours", "The most similar pairs, nearest first", columns, rows)


def _redundant_share(row: Mapping[str, float]) -> float:
    return float(row["redundancy"]) / max(float(row["mutual_12"]), 1e-9)


def _information_sheet(advice: Advice) -> Sheet:
    """Return three bars: the information of each modality, and that of both together."""
    values = dataclasses.asdict(advice.information.information)
    rows = {
        "both together": tuple(PARTS),
        "modality 2": ("redundancy", "unique_2"),
        "modality 1": ("redundancy", "unique_1"),
    }
    traces = []
    for place, parts in enumerate(rows.values()):
        start = 0.0
        for part in parts:
            text, role = PARTS[part]
            value = values[part]
            inside = f"{value:.2f}" if value > SHOWN * values["mutual_12"] else ""
            traces.append(
                bars([place], [value], role, starts=[start], text=[inside], hover=f"{text}: {value:.2f} bits")
            )
            start += value
    label = "; ".join(f"{text} {rounded(values[name])} bits" for name, (text, _) in PARTS.items())
    layout = panel_layout(
        230,
        xaxis=value_axis("bits", range=[0, 1.02 * max(values["mutual_12"], 1e-3)]),
        yaxis=name_axis(list(rows)),
    )
    keys = [Key(role, text, "square", line=False) for text, role in PARTS.values()]
    title = "Information of each modality about the label"
    figure = Figure("information-bars", title, label, data=traces, layout=layout, keys=tuple(keys))
    return Sheet("information", title, label, figures=[figure], columns=1, height=2.4)


def _neighbors_sheet(advice: Advice) -> Sheet:
    """Return the best strength against the redundant share: the suite, the neighbours with their rank, this pair."""
    rows = suite()
    share = _redundant_share(dataclasses.asdict(advice.information.information))
    highest = max(float(row["best"]) for row in rows)
    ranges = "; ".join(
        f"modality {number}: {expectation.low:g} to {expectation.high:g}"
        for number, expectation in enumerate(advice.expectations, 1)
    )
    return Sheet(
        "neighbours",
        "These pairs among those of the suite",
        "best strength against the redundant share for every modality of the suite; "
        f"this pair is {share:.0%} redundant; {ranges}",
        figures=[
            _plane(expectation, rows, share, number=number, highest=highest)
            for number, expectation in enumerate(advice.expectations, 1)
        ],
        columns=2,
        keys=[
            Key("axis", "suite", line=False),
            Key("ink", "nearest neighbours, by rank", line=False, open=True),
            Key("muted", "these pairs: strengths worth trying", "none"),
        ],
        height=3.8,
    )


def _plane(
    expectation: Expectation, rows: Sequence[Mapping[str, float]], share: float, *, number: int, highest: float
) -> Figure:
    """Return the panel of one modality."""
    places = [(_redundant_share(row), float(row["best"])) for row in expectation.near]
    ranks: dict[tuple[float, float], list[str]] = {}
    for rank, place in enumerate(places, 1):
        ranks.setdefault(place, []).append(str(rank))
    role = modality(number)
    strengths = [float(row["best"]) for row in rows]
    span = line([share, share], stretched([expectation.low, expectation.high]), f"{role}-band", mode="lines", width=8)
    every = points([_redundant_share(row) for row in rows], stretched(strengths), "axis", size=7)
    near = points(
        [x for x, _ in ranks],
        stretched([y for _, y in ranks]),
        "ink",
        size=9,
        symbol="circle-open",
        outline=2,
        text=[", ".join(names) for names in ranks.values()],
    )
    for trace, best in ((every, strengths), (near, [y for _, y in ranks])):
        trace["customdata"] = [f"{value:g}" for value in best]
        trace["hovertemplate"] = "redundant share %{x:.2f}, best strength %{customdata}<extra></extra>"
    layout = panel_layout(
        340,
        xaxis=value_axis("redundant share of the information", range=[-0.03, 1.03]),
        yaxis=stretched_axis(1.2 * highest, "", range=stretched([-0.012, 1.4 * highest]).tolist()),
        annotations=[title_above("best strength")],
        shapes=[upright_line(share, role)],
    )
    label = f"best strength against the redundant share, with the neighbours of modality {number} by their rank"
    return Figure(f"neighbours-{number}", f"modality {number}", label, data=[span, every, near], layout=layout)
