"""What a reader of scores of neighbours should know of the graphs and the rows: hubs, copies, zero rows and ties."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.alignment.items import Items
from modalign.alignment.scoring import Record
from modalign.alignment.settings import Settings
from modalign.alignment.within_chance import number_of_pairings
from modalign.common.tensors import as_tensor
from modalign.metrics.diagnostics import count_copies, hubness, reciprocity, zero_rows
from modalign.metrics.inputs import Graphs
from modalign.metrics.registry import METRICS
from modalign.metrics.tied_graphs import TiedGraphs
from modalign.metrics.tied_scores import TiedScore
from modalign.neighbors.copies import distinct_rows
from modalign.ops.knn import DTYPES

__all__ = ["graph_facts", "note_few_pairings", "note_pairings", "record_ties"]

MANY_COPIES = 0.01  # share of the items, above which a note says so
MOSTLY = 0.5  # share of the pairs of copies on one side that are copies on the other
FEW_PAIRINGS = 200  # below which p-values are coarse
NEARLY_ALL = 0.995  # share of the best score without ties, from which no note says what ties allow
BEYOND_CHANCE = 4.0  # standard deviations of a count of pairs, from which joint copies are no accident


def graph_facts(items: Items, settings: Settings, record: Record, graphs: Graphs) -> None:
    """Record the facts of both graphs and tables, and note what distorts scores."""
    facts, tables = record.facts, dict(zip("xy", items.rows, strict=True))
    sides = {"x": graphs.a, "y": graphs.b}
    facts["reciprocity"] = {side: reciprocity(graph) for side, graph in sides.items()}
    facts["hubness"] = {side: dataclasses.asdict(hubness(graph)) for side, graph in sides.items()}
    numbers = {side: distinct_rows(as_tensor(side, table, DTYPES))[0] for side, table in tables.items()}
    copies = {side: count_copies(of_side) for side, of_side in numbers.items()}
    zeros = {side: zero_rows(table) for side, table in tables.items()}
    facts["duplicates"] = {side: dataclasses.asdict(counts) for side, counts in copies.items()}
    facts["zero_rows"] = zeros
    for side, counts in copies.items():
        if counts.items > MANY_COPIES * items.n and items.groups is None:
            record.note(
                f"{counts.items:,} items of {side} have an exact copy; they hold {counts.groups:,} distinct rows. If "
                "items of equal rows belong together, as captions of one image do, give "
                f"groups=np.unique({side}, axis=0, return_inverse=True)[1].ravel()"
            )
    for side, count in zeros.items():
        if count and settings.metric == "cosine":
            record.note(
                f"{count:,} rows of {side} are all zero and have no direction (failed embeddings?). Zero rows in "
                "the same places of x and y look like alignment; leave them out"
            )
    if items.groups is None:
        _note_joint_copies(record, numbers["x"], numbers["y"])


def _note_joint_copies(record: Record, x: Tensor, y: Tensor) -> None:
    """Note items that repeat in x and in y at once where copies on one side mostly are copies on the other, too."""
    n = len(x)
    pairs = torch.unique(torch.stack([x, y], 1), dim=0, return_inverse=True)[1]
    joint = count_copies(pairs)
    record.facts["joint_copies"] = dataclasses.asdict(joint)
    of_x, of_y, of_both = (_pairs_of_copies(numbers) for numbers in (x, y, pairs))
    expected = of_x * of_y / (n * (n - 1) / 2)
    beyond_chance = of_both > expected + BEYOND_CHANCE * math.sqrt(expected) + 1
    if joint.items and beyond_chance and of_both >= MOSTLY * min(of_x, of_y):
        record.note(
            f"{joint.items:,} items repeat another item in x and in y at once. If they are the same item twice, they "
            "are not independent; intervals are then too narrow and p-values too small: leave the copies out, or give "
            "groups=np.unique(np.hstack([x, y]), axis=0, return_inverse=True)[1].ravel(). If they are different items "
            "of equal features, as categories give them, leave them as they are"
        )


def _pairs_of_copies(numbers: Tensor) -> float:
    counts = torch.bincount(numbers).double()
    return float((counts * (counts - 1) / 2).sum())


def note_few_pairings(items: Items, record: Record) -> None:
    """Note that p-values cannot be small where relabellings within classes hardly change which rows are paired."""
    if items.within is None:
        return
    tables = zip("xy", items.rows, strict=True)
    x, y = (distinct_rows(as_tensor(side, table, DTYPES))[0].cpu() for side, table in tables)
    note_pairings(number_of_pairings(items.within, x, y), record)


def note_pairings(pairings: float, record: Record) -> None:
    """Note that p-values cannot be small where relabellings within classes give few different pairings."""
    if pairings == 1:
        record.note(
            "relabelling within the classes of within changes nothing: in each of them, the rows of x or of y are all "
            "the same, so that p-values say nothing and cannot be small; take classes that hold different rows"
        )
    elif pairings < FEW_PAIRINGS:
        record.note(
            f"relabelling within the classes of within gives {pairings:.0f} different pairings of the rows at most, so "
            f"that no p-value means less than {1 / pairings:.2g}; take larger classes"
        )


def record_ties(record: Record, tied: TiedGraphs, scores: Mapping[str, TiedScore]) -> None:
    """Record the ties of x and y and the errors of scores from drawn orders, and note what the ties do to scores."""
    drawn = {name: score for name, score in scores.items() if score.draws}
    draws = max((score.draws for score in drawn.values()), default=0)
    errors = {name: score.error for name, score in drawn.items()}
    ties = _ties_of(tied)
    record.facts["ties"] = {**ties, "draws": draws, "errors": errors}
    how = "their expectation over random orders of tied neighbours"
    if drawn:
        how += f" ({', '.join(drawn)}: the mean over {draws} drawn orders)"
    shares = " and ".join(f"of {share:.1%} of the items of {side}" for side, share in ties["items"].items())
    record.note(
        f"neighbours tie (the last one in the list {shares} with the next one), so scores of neighbours are {how}"
    )
    for name, score in scores.items():
        if score.best >= NEARLY_ALL * METRICS[name].best:
            continue
        is_bound = METRICS[name].expected is not None
        limit = f"can be {score.best:.2g} at most" if is_bound else f"of x or y with itself is {score.best:.2g}"
        record.note(
            f"{name} {limit}: two random orders of the same ties differ; the calibrated score is relative to that"
        )


def _ties_of(tied: TiedGraphs) -> dict[str, dict[str, Any]]:
    """Return the share of items of x and of y whose k-th neighbour ties with the next, and the largest class there."""
    shares, largest = {}, {}
    for side, lists in (("x", tied.x), ("y", tied.y)):
        ranks = lists.ranks(k=tied.k)
        last = ranks.starts[1:] - 1
        is_cut = ranks.before[last] + ranks.tied[last] > tied.k
        shares[side] = float(is_cut[lists.lists].mean())
        largest[side] = int(np.where(is_cut, ranks.tied[last], 1).max())
    return {"items": shares, "largest": largest}
