"""Puts findings, figures, tables and provenance into one HTML file that needs nothing but itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from plotly.offline import get_plotlyjs

from modalign.experiments.sweep.findings import Finding, findings
from modalign.experiments.sweep.results import Case, Results
from modalign.experiments.sweep.statistics import Estimate, mean_interval
from modalign.report.figures.accuracy import accuracy_figures
from modalign.report.figures.alignment import MEASURES, alignment_figures, case_keys, scatter_figures
from modalign.report.figures.drawing import Figure, ramp
from modalign.report.figures.training import training_figures
from modalign.report.words import accuracy, points, sentences, strength_range

__all__ = ["render"]

TREND_SIGNS = {"rises": "↗", "peaks between": "∩", "falls": "↘", "flat": "→", None: "–"}


class _Group(NamedTuple):
    """Panels that stand side by side, under the name of a case where they belong to one."""

    case: Case
    figures: list[Figure]


def render(results: Results) -> str:
    """The whole page as text."""
    found = findings(results)
    accuracies = accuracy_figures(results, found)
    alignments = alignment_figures(results)
    scatters = scatter_figures(results)
    training = [_Group(case, training_figures(results, case)) for case in results.cases]
    every = [*accuracies, *alignments, *scatters, *(figure for group in training for figure in group.figures)]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_packaged("keys.html") + _packaged("page.html")).render(
        results=results,
        base="no alignment" if results.strengths[0] == 0 else f"strength {results.strengths[0]:g}",
        conclusions=list(zip(results.cases, sentences(found), strict=True)),
        glance=[_glance_row(results, finding) for finding in found],
        accuracies=list(zip(results.cases, accuracies, strict=True)),
        alignments=alignments,
        case_keys=case_keys(results),
        scatters=scatters,
        training=training,
        measures=MEASURES,
        k=_neighbours(results.config),
        tables=[(case, _numbers(results, case, found)) for case in results.cases],
        facts=_facts(results),
        figures={figure.name: {"data": _json(figure.data), "layout": _json(figure.layout)} for figure in every},
        ramps={name: ramp(len(results.strengths), dark=name == "dark") for name in ("light", "dark")},
        style=_packaged("page.css"),
        script=_packaged("page.js"),
        plotly=get_plotlyjs(),
    )


def _neighbours(config: Mapping[str, Any]) -> object:
    """The k of mutual k-NN, None where the configuration does not say."""
    metrics = config.get("metrics")
    return metrics.get("k") if isinstance(metrics, Mapping) else None


def _packaged(name: str) -> str:
    return files("modalign.report").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def _glance_row(results: Results, finding: Finding) -> dict[str, str]:
    test = results.grid(finding.case, finding.predictor.column("accuracy"))
    single = finding.baseline == finding.strongest
    at_best = mean_interval(test[:, results.strengths.index(finding.best)])
    if finding.trend is None or single:
        verdict = "unknown"
    elif finding.gains:
        verdict = "gain"
    else:
        verdict = "harm" if finding.end.negative else "none"
    return {
        "case": finding.case.label,
        "modality": finding.name,
        "number": str(finding.modality),
        "rows": str(len(finding.case.predictors)),
        "sign": TREND_SIGNS[None if single else finding.trend],
        "trend": "one strength" if single else finding.trend or "one seed",
        "verdict": verdict,
        "best": strength_range(finding),
        "before": accuracy(mean_interval(test[:, 0])),
        "at_best": accuracy(at_best),
        "gain": "–" if finding.best == finding.baseline else points(finding.gain, unit=""),
        "end": "–" if single else points(finding.end, unit=""),
    }


def _numbers(results: Results, case: Case, found: Sequence[Finding]) -> list[dict[str, Any]]:
    """One row for each strength: every mean with its half-width, and which modalities are at their best there."""
    columns = (*(one.column("accuracy") for one in case.predictors), *MEASURES)
    grids = {column: results.grid(case, column) for column in columns}
    rows = []
    for i, strength in enumerate(results.strengths):
        best = [f.predictor.column("accuracy") for f in found if f.case == case and f.best == strength]
        cells = []
        for column in columns:
            estimate = mean_interval(grids[column][:, i])
            text = accuracy(estimate) if column.startswith("accuracy") else _score(estimate)
            cells.append({"column": column, "text": text, "best": column in best})
        rows.append({"strength": f"{strength:g}", "cells": cells})
    return rows


def _score(value: Estimate) -> str:
    if not math.isfinite(value.mean):
        return "–"
    half = value.half_width
    return f"{value.mean:.3f}" + ("" if half is None else f" ± {half:.3f}")


def _facts(results: Results) -> list[tuple[str, str]]:
    """Provenance as (name, text): what the sweep recorded, the seeds and the time its training took."""
    facts = [(key.replace("_", " "), _words(value)) for key, value in results.provenance.items() if key != "seed"]
    seconds = float(results.runs["seconds"].sum())
    facts.append(("seeds", ", ".join(str(seed) for seed in results.seeds)))
    facts.append(("training time", f"{_duration(seconds)}, summed over {len(results.runs)} runs"))
    return facts


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        known = [f"{key.replace('_', ' ')} {_words(item)}" for key, item in value.items() if item not in (None, [], {})]
        return ", ".join(known) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value) or "–"
    return "–" if value is None else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _json(value: Any) -> Any:
    """``value`` with NaN and infinities as None, which JSON can write and Plotly draws as a gap."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
