"""The redundant, unique and synergistic parts of tables, made to add up, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modalign.information.inputs import Array, Codes
from modalign.information.joint import decomposed
from modalign.information.tables import Resampled, count_tables, is_filled, label_bits, most_label_bits, mutual_nats

__all__ = ["PARTS", "Intervals", "consistent", "intervals_of", "parts_of_tables", "unfilled", "widened"]

PARTS = ("redundancy", "unique_1", "unique_2", "synergy", "mutual_1", "mutual_2", "mutual_12")
# the informations that a part is a part of
WHOLES = {
    "redundancy": ("mutual_1", "mutual_2"),
    "unique_1": ("mutual_1",),
    "unique_2": ("mutual_2",),
    "synergy": ("mutual_12",),
}
Intervals = dict[str, tuple[float, float]]


def parts_of_tables(tables: Sequence[Array], gap: float) -> Array:
    """Return ``PARTS`` in bits of the tables (code, y) of modality 1, modality 2 and both.

    Synergy may be negative by chance.

    Args:
        tables: Counts, [codes, classes] each.
        gap: Nats to which the decomposition is solved.
    """
    first, second, both = tables
    by_class = first.sum(0)
    coupled = first[:, None] * second[None] / np.where(by_class > 0, by_class, 1.0)  # independent given y
    information = decomposed(coupled / coupled.sum(), gap)
    mutual_12 = mutual_nats(both) / np.log(2)
    least = information.redundancy + information.unique_1 + information.unique_2
    values = {**vars(information), "synergy": mutual_12 - least, "mutual_12": mutual_12}
    return np.array([values[name] for name in PARTS])


def consistent(parts: Array, entropy: float) -> dict[str, float]:
    """Return parts that are not negative and add up to at most the label's entropy, from estimates that may not.

    They follow from what each modality tells, what both must tell at least, and what they do tell.

    Args:
        parts: Estimates of ``PARTS`` in bits.
        entropy: The entropy of the labels in bits.
    """
    one, two, both = parts[4:].clip(0, entropy)
    least = parts[:3].sum().clip(max(one, two), min(one + two, entropy))
    both = max(both, least)
    values = (one + two - least, least - two, least - one, both - least, one, two, both)
    return {name: max(float(value), 0.0) for name, value in zip(PARTS, values, strict=True)}


def intervals_of(measured: Resampled, confidence: float, items: Codes) -> Intervals:
    """Return the interval of each part: the estimate varies about the truth as samples vary about their mean.

    An interval reaches as far below the estimate as a sample may lie above the mean, so that nothing has an interval
    from 0; and as far above it as a sample may lie to either side, since samples of more information vary more. The
    mean of the draws, which was taken off, is itself known to their spread / sqrt(draws). A part reaches as low as the
    information that it is a part of, and no interval reaches beyond the entropy that the label may have.

    Noise in a table looks like information that the other modality lacks. Its bias is greatest where nothing is unique,
    and samples of a table that has this noise show only a part of it: so the intervals of the four parts reach as far
    again as the bias that was taken off.

    Args:
        measured: ``PARTS`` in bits, and (resamples, 7) of samples.
        confidence: The confidence level.
        items: (n, 4) label and codes.
    """
    most = most_label_bits(items, confidence)
    half = (1 - confidence) / 2
    estimate, draws = measured.estimate, measured.draws
    redundancy, unique_1, unique_2 = measured.bias[:3]
    # of synergy it is the bias of what both must tell at least that remains
    bias = np.array([redundancy, unique_1, unique_2, -(redundancy + unique_1 + unique_2), 0.0, 0.0, 0.0])
    below, above = np.quantile(draws - draws.mean(0), [half, 1 - half], axis=0) * np.sqrt(1 + 1 / len(draws))
    parts = consistent(estimate, label_bits(items))
    low = dict(zip(PARTS, estimate - above - bias.clip(0), strict=True))
    high = dict(zip(PARTS, estimate + np.maximum(above, -below) + (-bias).clip(0), strict=True))
    for name, wholes in WHOLES.items():
        low[name] = min(low[name], *(low[whole] for whole in wholes))
    return {
        name: (min(max(float(low[name]), 0.0), part), max(min(float(high[name]), most), part))
        for name, part in parts.items()
    }


def unfilled(items: Codes) -> list[bool]:
    """Return whether too few items fill the tables (code, y) of modality 1, modality 2 and both."""
    return [not is_filled(table) for table in count_tables(items, items.max(0) + 1)]


def widened(intervals: Intervals, items: Codes, confidence: float) -> Intervals:
    """Widen the intervals of parts that depend on an unfilled table to all that the label may hold."""
    one, two, both = unfilled(items)
    bits = most_label_bits(items, confidence)
    unknown = {"mutual_1": one, "mutual_2": two, "mutual_12": both, "synergy": one or two or both}
    return {
        name: (0.0, bits) if unknown.get(name, one or two) else (low, high) for name, (low, high) in intervals.items()
    }
