"""The page of a sweep: conclusions, figures, tables, configuration and provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypedDict

from modalign.experiments.sweep.draws import EACH
from modalign.experiments.sweep.findings import Finding, findings
from modalign.experiments.sweep.folder import Folder
from modalign.experiments.sweep.results import Case, Results, read
from modalign.experiments.sweep.statistics import Estimate, mean_interval
from modalign.files.paths import expanded
from modalign.report.figures.accuracy import accuracy_figures, predictor_symbol
from modalign.report.figures.alignment import MEASURES, alignment_figures, case_keys, scatter_figures
from modalign.report.figures.specification import Figure, Key
from modalign.report.figures.training import training_figures
from modalign.report.html import environment, packaged, plot_data, plot_scripts, write_report
from modalign.report.palette import css, modality, step
from modalign.report.words import accuracy, baseline_of, points, sentences, strength_range

__all__ = ["conclusions", "draw", "render", "write"]

TREND_SIGNS = {"rises": "↗", "peaks between": "∩", "falls": "↘", "flat": "→", "undecided": "?", None: "–"}


class _Group(NamedTuple):
    """The training curves of one case."""

    case: Case
    figures: list[Figure]


class _Cell(TypedDict):
    """A number of a table: its column, its text, and whether it is the accuracy at the best strength."""

    column: str
    text: str
    best: bool


class _Row(TypedDict):
    """The numbers of one strength."""

    strength: str
    cells: list[_Cell]


class _Numbers(NamedTuple):
    """A table of numbers: its caption, the heads of its columns after the strength, and its rows."""

    caption: str
    columns: list[str]
    rows: list[_Row]


def write(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a finished sweep and return its path.

    The page holds its own style, scripts and data: it opens without a network, and prints. The file appears whole or
    not at all.

    Args:
        folder (Path): The folder of results.

    Raises:
        ValueError: In one sentence, if the folder is missing, damaged or unfinished.
    """
    return write_report(Folder(folder), render(read(expanded(folder))), ())


def draw(folder: Path) -> Path:
    """Draw the figures of the report as SVG and PNG into ``folder/figures``, and return that folder.

    The same results give the same bytes. Drawing takes some seconds.

    Args:
        folder (Path): The folder of a finished sweep.

    Raises:
        ValueError: In one sentence, if the folder is missing, damaged or unfinished.
    """
    from modalign.report.figures.stills import draw_sheet
    from modalign.report.figures.sweep import sweep_sheets

    sheets = sweep_sheets(read(expanded(folder)))
    write_report(Folder(folder), None, [draw_sheet(sheet) for sheet in sheets])
    return expanded(folder) / "figures"


def conclusions(folder: Path) -> list[str]:
    """Return the conclusions of a finished sweep: one sentence for each case, in the order of its configuration.

    Args:
        folder (Path): The folder of results.

    Raises:
        ValueError: In one sentence, if the folder is missing, damaged or unfinished.
    """
    return sentences(findings(read(expanded(folder))))


def render(results: Results) -> str:
    """Return the page as HTML."""
    every = findings(results)
    accuracies = accuracy_figures(results, every)
    alignments = alignment_figures(results)
    scatters = scatter_figures(results)
    training = [_Group(case, training_figures(results, case)) for case in results.cases]
    panels = [*accuracies, *alignments, *scatters, *(figure for group in training for figure in group.figures)]
    figures = plot_data(panels)
    count = len(results.strengths)
    return (
        environment()
        .from_string(packaged("keys.html") + packaged("page.html"))
        .render(
            results=results,
            base=baseline_of(results.strengths),
            fused=any(case.has_fused_model for case in results.cases),
            new_data=all(case.get("data", {}).get("seed") == EACH for case in results.config["cases"]),
            conclusions=list(zip(results.cases, sentences(every), strict=True)),
            summary=[
                [_summary_row(results, finding) for finding in group]
                for _, group in groupby(every, key=lambda finding: finding.case.label)
            ],
            accuracies=list(zip(results.cases, accuracies, strict=True)),
            alignments=alignments,
            case_keys=case_keys(results),
            scatters=scatters,
            training=training,
            measures=MEASURES,
            k=_neighbors(results.config),
            tables=[table for case in results.cases for table in _tables(results, case, every)],
            facts=_facts(results),
            figures=figures,
            steps=[step(index, count) for index in range(count)],
            style=css(json.dumps(figures)) + packaged("page.css"),
            **plot_scripts(),
        )
    )


def _neighbors(config: Mapping[str, object]) -> object:
    """Return the k of mutual k-NN, None where the configuration does not say."""
    metrics = config.get("metrics")
    return metrics.get("k") if isinstance(metrics, Mapping) else None


def _summary_row(results: Results, finding: Finding) -> dict[str, object]:
    """Return the row of one predictor in the table below the conclusions."""
    predictor = finding.predictor
    test = results.grid(finding.case, predictor.column("accuracy"))
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
        "key": Key(modality(predictor.suffix), finding.name, predictor_symbol(predictor), line=False),
        "sign": TREND_SIGNS[None if single else finding.trend],
        "trend": "one strength" if single else finding.trend or "one seed",
        "verdict": verdict,
        "best": strength_range(finding),
        "before": accuracy(mean_interval(test[:, 0])),
        "at_best": accuracy(at_best),
        "gain": "–" if finding.best == finding.baseline else points(finding.gain, unit=""),
        "end": "–" if single else points(finding.end, unit=""),
    }


def _tables(results: Results, case: Case, every: Sequence[Finding]) -> list[_Numbers]:
    """Return the numbers of a case: one table, or one of accuracies and one for each of several pairs of modalities."""
    accuracies = {predictor.column("accuracy"): f"{predictor.name} accuracy, %" for predictor in case.predictors}
    pairs = {pair.name: {pair.column(m): title for m, title in MEASURES.items()} for pair in case.pairs}
    best = {(f.predictor.column("accuracy"), f.best) for f in every if f.case == case}
    if len(pairs) == 1:
        contents = {case.label: accuracies | pairs[case.pairs[0].name]}
    else:
        contents = {case.label: accuracies} | {f"{case.label}: {name}": columns for name, columns in pairs.items()}
    return [
        _Numbers(caption, list(columns.values()), _numbers(results, case, list(columns), best))
        for caption, columns in contents.items()
    ]


def _numbers(results: Results, case: Case, columns: Sequence[str], best: Collection[tuple[str, float]]) -> list[_Row]:
    """Return one row for each strength: every mean with its half-width, marked where a model is at its best."""
    grids = {column: results.grid(case, column) for column in columns}
    rows: list[_Row] = []
    for index, strength in enumerate(results.strengths):
        cells: list[_Cell] = []
        for column, grid in grids.items():
            estimate = mean_interval(grid[:, index])
            text = accuracy(estimate) if column.startswith("accuracy") else _score(estimate)
            cells.append({"column": column, "text": text, "best": (column, strength) in best})
        rows.append({"strength": f"{strength:g}", "cells": cells})
    return rows


def _score(value: Estimate) -> str:
    if not math.isfinite(value.mean):
        return "–"
    half = value.half_width
    return f"{value.mean:.3f}" + ("" if half is None else f" ± {half:.3f}")


def _facts(results: Results) -> list[tuple[str, str]]:
    """Return provenance as names and texts: what the sweep recorded, the seeds, and the time of its training."""
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
    minutes, remaining = divmod(round(seconds), 60)
    return f"{minutes} min {remaining} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
