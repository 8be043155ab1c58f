"""One alignment as an HTML file that needs nothing but itself: conclusions, pictures, numbers, provenance.

``draw`` leaves the same pictures beside it, as SVG and PNG.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from modalign.alignment.nulls import Null
from modalign.alignment.results import Alignment, LayerAlignment, Score
from modalign.files.atomic import write_atomically
from modalign.metrics.registry import METRICS
from modalign.report.figures.drawing import Figure, Key, Trace, layout, plain, ramp, value_axis
from modalign.report.figures.stills import Sheet, colours_of, draw_sheet
from modalign.report.html import Picture, beside, write_pictures
from modalign.report.words import at_the_floor, chance_of, fixed, interval_of, title_of

__all__ = ["conclusions", "draw", "write"]

NAMES = ("scores", "null", "k-curve", "size-curve", "layers")  # of pictures
SCORE = Markup(
    "The metric of that name, as <code>modalign.metrics</code> defines it with its source. For a distance lower is "
    "closer."
)
P = "How often chance reaches the score. “≤”: no relabelling reached it, and more of them give a finer p."
CALIBRATED = Markup(
    "0 where chance could have given the score, 1 for the best score there is: (score − threshold) / (best − "
    'threshold) (<a href="https://arxiv.org/abs/2602.14486">arXiv:2602.14486</a>).'
)
COLUMNS = ("metric", "score", "interval", "by chance", "threshold", "p", "calibrated", "null", "items searched")


def write(found: Alignment | LayerAlignment, path: str | Path) -> Path:
    """Write ``path``, whole or not at all, and return it.

    The page holds its own style, scripts and data: it opens without a network, and prints.
    """
    target = Path(path)
    page = _of_layers(found) if isinstance(found, LayerAlignment) else _of_scores(found)
    write_atomically(target, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return target


def draw(found: Alignment | LayerAlignment, page: str | Path) -> Path:
    """Draw the pictures of ``page`` as SVG and PNG into ``PAGE-figures`` beside it, and return that folder.

    Pictures that an earlier alignment left there and this one does not have are taken away; nothing else is.
    """
    folder = beside(Path(page))
    pictures: list[Picture] = []
    for figure in _figures(found):
        height = figure.layout["height"] / 90
        sheet = Sheet(figure.name, figure.heading, figure.label, [figure], 1, height=height, width=7.5)
        draw_sheet(pictures, sheet, colours_of())
    for name in set(NAMES) - {picture.name for picture in pictures}:
        for suffix in ("svg", "png"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    return write_pictures(folder, pictures)


def conclusions(found: Alignment) -> list[str]:
    """What the scores say: beyond chance where p is at most 1 - confidence. The first score has its own sentence."""
    level = 1 - found.settings["confidence"]
    first, *others = found.scores
    sentences = [_sentence(first, level)]
    judged = [score for score in others if score.null is not None]
    for kind, some in (
        ("Beyond chance, too", [score for score in judged if _beyond(score.null, level)]),
        ("Not beyond what chance can give", [score for score in judged if not _beyond(score.null, level)]),
        ("Not compared with chance", [score for score in others if score.null is None]),
    ):
        if some:
            listed = ", ".join(f"{title_of(score.metric)} {fixed(score.value, 3)}{_beside(score)}" for score in some)
            sentences.append(f"{kind}: {listed}.")
    copies = {side: of["items"] for side, of in found.facts.get("duplicates", {}).items() if of["items"]}
    if copies:
        counted = " and ".join(f"{items:,} items of {side}" for side, items in copies.items())
        sentences.append(f"{counted} have an exact copy: their neighbours are chosen among copies by index.")
    for side, hubs in found.facts.get("hubness", {}).items():
        if hubs["largest"] > 100 * found.settings["k"]:
            sentences.append(
                f"One item of {side} is among the neighbours of {hubs['largest']:,} others, {hubs['antihubs']:.0%} of "
                "the items of none: such hubs lower every score of neighbours."
            )
    return sentences


def _beside(score: Score) -> str:
    return "" if score.null is None else f" (chance {fixed(score.null.mean, 3)})"


def _beyond(null: Null | None, level: float) -> bool:
    return null is not None and null.p <= level + 1e-9


def _sentence(score: Score, level: float) -> str:
    name = _capital(title_of(score.metric))
    value = fixed(score.value, 3)
    span = "" if score.low is None else f" ({interval_of(score, 3)})"
    if score.null is None:
        return f"{name} is {value}{span}; what chance gives was not worked out."
    distance, mean = METRICS[score.metric].best == 0, fixed(score.null.mean, 3)
    p = chance_of(score)
    sure = f"p {p}" if p[0] in "<≤" else f"p = {p}"
    if not _beyond(score.null, level):
        return f"{name} is {value}{span}, no {'less' if distance else 'more'} than chance, {mean}, can give ({sure})."
    return (
        f"{name} is {value}{span}, {'below' if distance else 'above'} what chance gives, {mean} ({sure}); "
        f"calibrated {fixed(score.null.calibrated, 3)}."
    )


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]


def _floor(count: int) -> str:
    return (
        f"No relabelling of {count:,} reached the score, so p is at most 1/{count + 1:,}; more relabellings give a "
        "finer one."
    )


def _floors(found: Alignment) -> list[str]:
    """A note where p says how many relabellings there were and no more."""
    nulls = [score.null for score in found.scores if score.null is not None and at_the_floor(score.null)]
    counts = sorted({null.relabellings for null in nulls})
    return [f"p ≤ {1 / (count + 1):.2g}: {_floor(count)[0].lower()}{_floor(count)[1:]}" for count in counts]


def _of_scores(found: Alignment) -> str:
    settings = found.settings
    rows = [
        (
            title_of(score.metric),
            fixed(score.value),
            interval_of(score) or "–",
            *(
                ("–",) * 5
                if score.null is None
                else (
                    fixed(score.null.mean),
                    fixed(score.null.threshold),
                    chance_of(score),
                    fixed(score.null.calibrated),
                    score.null.kind + (f", {score.null.relabellings} times" if score.null.relabellings else ""),
                )
            ),
            f"{score.rows:,}",
        )
        for score in found.scores
    ]
    return _page(
        title=f"{settings['x']} and {settings['y']}",
        facts=f"{settings['n']:,} items, widths {settings['d_x']} and {settings['d_y']}, k = {settings['k']}, "
        f"{settings['metric']} neighbours, {settings['confidence']:.0%} intervals",
        sentences=conclusions(found),
        notes=(*found.notes, *_floors(found)),
        figures=_figures(found),
        reading=_reading_of_scores(found),
        rows=rows,
        folded=[*_folded(found), ("What was found on the way", _entries(found.facts))],
    )


def _of_layers(found: LayerAlignment) -> str:
    lowest = METRICS[found.metric].best == 0
    count = len(found.matrix) * len(found.matrix[0])
    sentence = (
        f"Of {count} pairs of layers the {_extreme(found)} {title_of(found.metric)} is {fixed(found.value, 3)}, "
        f"of layer {found.best[0]} of x and {found.best[1]} of y, counted from 0."
    )
    if found.null is not None:
        beyond = _beyond(found.null, 1 - found.settings["confidence"])
        reached = "chance does not reach" if beyond else "chance reaches"
        floor = at_the_floor(found.null)
        sentence += (
            f" Looking at {count} pairs, {reached} that: its {'minimum' if lowest else 'maximum'} is "
            f"{fixed(found.null.mean, 3)} in the mean (p {'≤' if floor else '='} {found.null.p:.2g}); "
            f"calibrated {fixed(found.null.calibrated, 3)}."
        )
    return _page(
        title=f"{_capital(METRICS[found.metric].title)} of {len(found.matrix)} × {len(found.matrix[0])} layers",
        facts=f"{found.settings['n']:,} items, k = {found.settings['k']}, layers counted from 0",
        sentences=[sentence],
        notes=[_floor(found.null.relabellings)] if found.null is not None and at_the_floor(found.null) else (),
        figures=_figures(found),
        reading=_reading_of_layers(found),
        rows=[],
        folded=_folded(found),
    )


def _extreme(found: LayerAlignment) -> str:
    return "lowest" if METRICS[found.metric].best == 0 else "highest"


def _reading_of_scores(found: Alignment) -> list[tuple[str, str | Markup]]:
    entries: list[tuple[str, str | Markup]] = [("Score", SCORE)]
    if any(score.low is not None for score in found.scores):
        entries.append((
            "Interval",
            "Of all items: where the score of other items of the same population would lie, from how much random "
            "halves and quarters of these differ. Of sampled queries: where the score of all items lies.",
        ))  # fmt: skip
    if any(score.null is not None for score in found.scores):
        by_chance = (
            "The mean score when the items of one representation are relabelled at random; the upright bars in the "
            "first picture. Wide representations and few items score high by chance."
        )
        p = f"{P} Nothing is corrected for the number of metrics looked at."
        entries += [("By chance", by_chance), ("p", p), ("Calibrated", CALIBRATED)]
    return entries


def _reading_of_layers(found: LayerAlignment) -> list[tuple[str, str | Markup]]:
    layers = "x is the first representation given, y the second; their layers are counted from 0."
    bright = f"The {'lower' if METRICS[found.metric].best == 0 else 'higher'} a value, the brighter: bright is aligned."
    entries: list[tuple[str, str | Markup]] = [("Score", SCORE), ("Layers", layers), ("Picture", bright)]
    if found.null is not None:
        by_chance = (
            f"The {_extreme(found)} score of all pairs of layers when the items of one representation are relabelled "
            "at random, in the mean. p and the calibrated score are of it, so that looking at many pairs is paid for."
        )
        entries += [("By chance", by_chance), ("p", P), ("Calibrated", CALIBRATED)]
    return entries


def _figures(found: Alignment | LayerAlignment) -> list[Figure]:
    if isinstance(found, LayerAlignment):
        return [_layers_figure(found)]
    figures = [_scores_figure(found)]
    if any(score.null is not None for score in found.scores):
        figures.append(_null_figure(found))
    if "k" in found.curves:
        figures.append(_k_figure(found.curves["k"]))
    if "size" in found.curves:
        figures.append(_size_figure(found.curves["size"]))
    return figures


def _page(*, figures: list[Figure], **content: Any) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_packaged("keys.html") + _packaged("alignment_page.html")).render(
        figures=figures,
        columns=COLUMNS,
        drawn={figure.name: {"data": figure.data, "layout": figure.layout} for figure in figures},
        style=_packaged("page.css"),
        script=_packaged("page.js"),
        plotly=get_plotlyjs(),
        **content,
    )


def _packaged(name: str) -> str:
    return files("modalign.report").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def _lines(name: str) -> str:
    """For an axis of names, two lines where one would leave a phone no room for the picture."""
    return "<br>".join(plain(line) for line in textwrap.wrap(name, 30))


def _scores_figure(found: Alignment) -> Figure:
    """Every score with its interval, and the mean of chance as a bar."""
    scores = list(reversed(found.scores))
    names = [_lines(title_of(score.metric)) for score in scores]
    data: list[Trace] = [
        {
            "type": "scatter", "mode": "markers", "x": [score.value for score in scores], "y": names,
            "marker": {"size": 9, "color": "var(--modality-1)"}, "name": "score",
            "error_x": {
                "type": "data", "symmetric": False, "color": "var(--modality-1)", "thickness": 2,
                "array": [0 if score.high is None else score.high - score.value for score in scores],
                "arrayminus": [0 if score.low is None else score.value - score.low for score in scores],
            },
        },
        {
            "type": "scatter", "mode": "markers", "name": "by chance",
            "x": [None if score.null is None else score.null.mean for score in scores], "y": names,
            "marker": {"symbol": "line-ns-open", "size": 14, "color": "var(--modality-2)", "line": {"width": 2}},
        },
    ]  # fmt: skip
    told = "; ".join(
        f"{title_of(score.metric)} {fixed(score.value, 3)}"
        + ("" if score.null is None else f", by chance {fixed(score.null.mean, 3)}")
        for score in found.scores
    )
    axes = {
        "xaxis": value_axis(title={"text": "score", "standoff": 6}),
        "yaxis": {"fixedrange": True, "automargin": True, "gridcolor": "var(--grid)"},
    }
    height = 90 + 34 * len(scores)
    keys = (Key("modality-1", "score, with its interval"), Key("modality-2", "mean by chance", "line-ns", line=False))
    return Figure("scores", "Scores and what chance gives", told, data, layout(height, **axes), keys)


def _null_figure(found: Alignment) -> Figure:
    """Every score on the scale of its own null, so that metrics can be compared: 0 is the threshold of chance."""
    scores = [score for score in reversed(found.scores) if score.null is not None]
    names = [_lines(METRICS[score.metric].title) for score in scores]
    nulls = [score.null for score in scores if score.null is not None]
    data: list[Trace] = [
        {
            "type": "scatter", "mode": "markers", "x": [null.calibrated for null in nulls], "y": names,
            "customdata": [chance_of(score) for score in scores],
            "hovertemplate": "%{y}: %{x:.3f}, p %{customdata}<extra></extra>",
            "marker": {"size": 9, "color": "var(--modality-1)"}, "name": "calibrated",
            "error_x": {
                "type": "data", "symmetric": False, "color": "var(--modality-1)", "thickness": 2, "width": 0,
                "array": [0.0] * len(nulls), "arrayminus": [null.calibrated for null in nulls],
            },
        }
    ]  # fmt: skip
    told = "; ".join(
        f"{METRICS[score.metric].title} {score.null.calibrated:.3f}" for score in found.scores if score.null is not None
    )
    axes = {
        "xaxis": value_axis(title={"text": "calibrated score", "standoff": 6}, range=[-0.02, 1.02]),
        "yaxis": {"fixedrange": True, "automargin": True, "gridcolor": "var(--grid)"},
    }
    heading = "Beyond chance: 0 where chance could have given the score, 1 the best there is"
    return Figure("null", heading, told, data, layout(90 + 34 * len(scores), **axes))


def _line(x: list[Any], y: list[float], role: str, name: str, **more: Any) -> Trace:
    style = {"color": f"var(--{role})", "width": 2}
    return {"type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": name, "line": style} | more


def _k_figure(curve: Mapping[str, Any]) -> Figure:
    data = [
        _line(curve["k"], curve["value"], "modality-1", "mutual k-NN"),
        _line(curve["k"], curve["chance"], "modality-2", "chance", mode="lines"),
    ]
    label = f"From {curve['value'][0]:.3f} at k = {curve['k'][0]} to {curve['value'][-1]:.3f} at k = {curve['k'][-1]}"
    axes = {"xaxis": value_axis(title={"text": "k", "standoff": 6}), "yaxis": value_axis(rangemode="tozero")}
    keys = (Key("modality-1", "mutual k-NN"), Key("modality-2", "chance", "none"))
    return Figure("k-curve", "Mutual k-NN against k", label, data, layout(280, **axes), keys)


def _size_figure(curve: Mapping[str, Any]) -> Figure:
    data = [_line(curve["sizes"], curve["values"], "modality-1", "mutual k-NN")]
    if curve["low"] != curve["high"]:
        outline = {"x": curve["sizes"] + curve["sizes"][::-1], "y": curve["low"] + curve["high"][::-1]}
        data.insert(0, {"type": "scatter", "mode": "lines", "fill": "toself", "line": {"width": 0},
                        "fillcolor": "var(--modality-1-band)", "hoverinfo": "skip"} | outline)  # fmt: skip
    told = ", ".join(
        f"{value:.3f} for {size:,} items" for size, value in zip(curve["sizes"], curve["values"], strict=True)
    )
    axes = {
        "xaxis": value_axis(
            type="log",
            tickvals=curve["sizes"],
            ticktext=[f"{size:,}" for size in curve["sizes"]],
            title={"text": "items", "standoff": 6},
        ),
        "yaxis": value_axis(rangemode="tozero"),
    }
    return Figure("size-curve", "Mutual k-NN expected of fewer items", told, data, layout(280, **axes))


def _layers_figure(found: LayerAlignment) -> Figure:
    colours = ramp(8, dark=False)
    if METRICS[found.metric].best == 0:
        colours.reverse()
    i, j = found.best
    shown = len(found.matrix) * len(found.matrix[0]) <= 400
    data: list[Trace] = [
        {
            "type": "heatmap", "z": found.matrix, "hovertemplate": "x %{y}, y %{x}: %{z:.4f}<extra></extra>",
            "colorscale": [[at / 7, colour] for at, colour in enumerate(colours)], "colorbar": {"thickness": 12},
            "texttemplate": f"%{{z:.{3 if len(found.matrix[0]) <= 12 else 2}f}}" if shown else "",
        },
        {
            "type": "scatter", "mode": "lines", "hoverinfo": "skip",
            "x": [j - 0.5, j + 0.5, j + 0.5, j - 0.5, j - 0.5], "y": [i - 0.5, i - 0.5, i + 0.5, i + 0.5, i - 0.5],
            "line": {"color": "var(--modality-2)", "width": 4},
        },
    ]  # fmt: skip
    label = (
        f"{title_of(found.metric)}: {_extreme(found)} {fixed(found.value, 3)} at layer {i} of x and {j} of y, "
        "counted from 0"
    )
    axes = {
        "xaxis": value_axis(
            title={"text": "layer of y", "standoff": 6},
            dtick=1,
            showgrid=False,
            range=[-0.5, len(found.matrix[0]) - 0.5],
        ),
        "yaxis": value_axis(
            title={"text": "layer of x"}, dtick=1, showgrid=False, range=[len(found.matrix) - 0.5, -0.5]
        ),
    }
    closer = " (lower is closer)" if METRICS[found.metric].best == 0 else ""
    heading = f"Every pair of layers; boxed: the {_extreme(found)}{closer}"
    return Figure("layers", heading, label, data, layout(160 + 34 * len(found.matrix), **axes))


def _folded(found: Alignment | LayerAlignment) -> list[tuple[str, list[tuple[str, str]]]]:
    cost = [(stage, f"{seconds:.2f} s") for stage, seconds in found.cost.items()]
    return [("Settings", _entries(found.settings)), ("Cost", cost), ("Provenance", _entries(found.provenance))]


def _entries(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name).replace("_", " "), _words(value)) for name, value in record.items()]


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value) or "–"
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
