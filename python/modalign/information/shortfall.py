"""What codes of modalities hold less than the modalities, and the parts and intervals that reckon with it.

Codes are functions of a modality, so in the population each tells at most what the modality does. If those of modality
1 tell f_1 bits less than it and those of modality 2 f_2 bits less, the parts of the modalities lie between

    redundancy   that of the codes, and f_1 + f_2 more
    unique_1     that of the codes less f_2, and f_1 more       (unique_2 likewise)
    synergy      that of the codes less f_1 + f_2, and f_12 more

since what is unique to a modality does not grow when it is coded, nor fall when the other is, and by no more than what
the code loses (Bertschinger et al. 2014; Rauh et al. 2017, arXiv:1705.05282). The losses themselves are estimated: what
the best model's predictions tell, and what it gained when its training items were doubled, less what the codes tell.
What no model finds is not among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modalign.information.inputs import Array
from modalign.information.parts import PARTS, Intervals, parts_of_tables
from modalign.information.tables import mutual_nats

__all__ = ["sharpened", "sharpening_gains", "shortfalls", "widened_by_shortfalls"]

SHARPEST = 2.0**10
ROUNDS = 40
ROUGH = 1e-6  # nats to which the parts of sharpened tables are solved


def shortfalls(tables: Sequence[Array], reached: Sequence[float | None], entropy: float) -> Array:
    """Return the bits that codes hold less than what models of the modalities reach, one for each table.

    Args:
        tables: The tables (code, class), with chance taken out.
        reached: The bits that the models reach; None for codes that are the user's own.
        entropy: The entropy of the labels in bits, which nothing exceeds.
    """
    held = [mutual_nats(table) / np.log(2) for table in tables]
    return np.array(
        [0.0 if bits is None else max(min(bits, entropy) - now, 0.0) for now, bits in zip(held, reached, strict=True)]
    )


def sharpened(table: Array, bits: float) -> Array:
    """Return a table of the same classes that tells some bits more, as if its codes had been blurred by chance.

    Counts move away from those of independent codes, (1 + s) p(code, y) - s p(code) p(y), and not below 0; s is found
    by bisection.
    """
    independent = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    wanted = mutual_nats(table) + bits * np.log(2)

    def moved(s: float) -> Array:
        values = np.maximum((1 + s) * table - s * independent, 0.0)
        return np.asarray(values * (table.sum(0) / np.maximum(values.sum(0), 1e-300)))

    if bits <= 0 or mutual_nats(table) <= 0:
        return table
    low, high = 0.0, 1.0
    while high < SHARPEST and mutual_nats(moved(high)) < wanted:
        high *= 2
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if mutual_nats(moved(middle)) < wanted else (low, middle)
    return moved(low)


def sharpening_gains(tables: Sequence[Array], short: Array) -> Array:
    """Return what ``PARTS`` of tables gain in bits when the tables are sharpened by the shortfalls."""
    if not short.any():
        return np.zeros(len(PARTS))
    sharp = [sharpened(table, bits) for table, bits in zip(tables, short, strict=True)]
    return parts_of_tables(sharp, ROUGH) - parts_of_tables(tables, ROUGH)


def widened_by_shortfalls(intervals: Intervals, short: Array, parts: dict[str, float], most: float) -> Intervals:
    """Return the intervals of the codes' parts, widened to where the modalities' may lie.

    Args:
        intervals: The intervals of the parts of the codes.
        short: (3,) the shortfalls of modality 1, modality 2 and both.
        parts: The estimated parts, which the intervals hold.
        most: The most bits that the label may have.
    """
    one, two, both = short
    moves = {
        "redundancy": (0.0, one + two),
        "unique_1": (two, one),
        "unique_2": (one, two),
        "synergy": (one + two, both),
        "mutual_1": (0.0, one),
        "mutual_2": (0.0, two),
        "mutual_12": (0.0, both),
    }
    return {
        name: (
            float(min(max(low - moves[name][0], 0.0), parts[name])),
            float(max(min(high + moves[name][1], most), parts[name])),
        )
        for name, (low, high) in intervals.items()
    }
