"""Sentences on what limits an estimate of the decomposition."""

from __future__ import annotations

import numpy as np

from modalign.information.codes import Coded, most_clusters
from modalign.information.inputs import Array
from modalign.information.parts import unfilled
from modalign.information.tables import FILLED, label_bits

__all__ = ["notes_on"]

FEW = 300  # items from which the intervals hold the exact parts of most kinds of data in docs/information.md


def notes_on(known: Coded, short: Array, clusters: int | None) -> tuple[str, ...]:
    """Say where tables are too large for the items, clusters too few for the classes, and what models may miss.

    Args:
        known: The codes and the models behind them.
        short: (3,) the bits that the codes may hold less than modality 1, modality 2 and both.
        clusters: The number of clusters that the user gave, or None.
    """
    items = known.items
    n, classes = len(items), int(items[:, 0].max()) + 1
    counts = [len(np.unique(column)) for column in items.T[1:]]
    names = (("x1", "mutual_1"), ("x2", "mutual_2"), ("x1 and x2", "mutual_12"))
    notes = [
        f"{n:,} items are too few for {count:,} codes of {name} x {classes:,} classes (wanted: {FILLED} a cell, "
        f"{FILLED * count * classes:,}): {part} and the parts of it are not known, and their intervals are all that is "
        "possible; give more items, or merge values, clusters or classes"
        for (name, part), count, few in zip(names, counts, unfilled(items), strict=True)
        if few
    ]
    most, entropy = clusters or most_clusters(n, classes), label_bits(items)
    if any(known.predictions) and np.log2(most) < entropy - 0.01:
        notes.append(
            f"{most} clusters of a modality tell at most {np.log2(most):.2f} of the label's "
            f"{entropy:.2f} bits; give more items, for more clusters ({FILLED} for each cluster and class), or merge "
            "classes"
        )
    modelled = [
        f"{bits:.3f} of {name} ({model})"
        for bits, (name, _), model in zip(short, names, known.models, strict=True)
        if model != "codes"
    ]
    if modelled and n < FEW:
        notes.append(
            f"{n} items are few for models to learn from, and information that they do not find is not in the "
            f"intervals: from {FEW} items on, docs/information.md has how often intervals hold the exact parts, and of "
            "fewer, examples in which they mostly do not"
        )
    if modelled:
        notes.append(
            "the estimates are of clusters of the models' predictions, which may tell less than the features by up to "
            f"{', '.join(modelled)} bits; the intervals include these bits, but nothing that none of the models finds, "
            "such as what a deep random network hides in simulated data (docs/information.md)"
        )
    return tuple(notes)
