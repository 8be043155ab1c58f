"""Tables of codes and classes: counts, mutual information, the share that chance explains, and samples of items.

Items are (n, 4) codes: the label, and the codes of modality 1, of modality 2 and of both together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from modalign.information.inputs import Array, Codes
from modalign.information.joint import GAP

__all__ = [
    "FILLED",
    "chance_share",
    "count_tables",
    "is_filled",
    "label_bits",
    "mixed",
    "most_label_bits",
    "mutual_nats",
    "resampled",
]

FILLED = 2  # items for every cell (code, class) of a table, from which it counts as filled
ROUGH = 1e-3  # nats to which the parts of a sample are solved
CHANCE_DRAWS = 40


@dataclasses.dataclass(frozen=True, eq=False)
class Resampled:
    """A statistic of tables and of samples of their items.

    Attributes:
        estimate: The statistic, its bias taken off.
        draws: (resamples, ...) the statistic of samples.
        bias: What samples tell more than the tables from which they are drawn, (...).
        tables: The tables of modality 1, modality 2 and both, with chance taken out.
    """

    estimate: Array
    draws: Array
    bias: Array
    tables: list[Array]


def count_tables(items: Codes, shape: Codes) -> list[Array]:
    """Return the tables (code, class) of modality 1, modality 2 and both.

    Args:
        items: (n, 4) label and codes.
        shape: (4,) the number of classes and of each kind of code.
    """
    return [
        np.bincount(items[:, i] * shape[0] + items[:, 0], minlength=shape[i] * shape[0])
        .reshape(shape[i], shape[0])
        .astype(np.float64)
        for i in (1, 2, 3)
    ]


def label_bits(items: Codes) -> float:
    """Return the entropy of the labels in bits, the most that anything can tell about them."""
    shares = np.bincount(items[:, 0]) / len(items)
    return float(-(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum())


def most_label_bits(items: Codes, confidence: float) -> float:
    """Return the upper limit of the entropy of the label from which the items were drawn, at most log2(classes).

    The limit is that of -log2 p(y) as a mean of independent items: of unequal classes, a sample has less entropy than
    the label as often as more.
    """
    from scipy.stats import norm

    shares = np.bincount(items[:, 0]) / len(items)
    surprise = -np.log2(shares[items[:, 0]])
    spread = float(norm.ppf((1 + confidence) / 2) * surprise.std() / np.sqrt(len(items)))
    return max(min(label_bits(items) + spread, float(np.log2(len(shares)))), label_bits(items))


def mutual_nats(table: Array) -> float:
    """Return the mutual information of a table of counts, in nats."""
    p = table / table.sum()
    outer = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    inside = p > 0
    return float((p[inside] * np.log(p[inside] / outer[inside])).sum())


def mixed(table: Array, share: float) -> Array:
    """Return (1 - share) p(code, y) + share p(code) p(y), as counts."""
    independent = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return np.asarray((1 - share) * table + share * independent)


def is_filled(table: Array) -> bool:
    """Return whether there are ``FILLED`` items for each class and each code that occurs."""
    return bool(table.sum() >= FILLED * (table.sum(1) > 0).sum() * table.shape[1])


def chance_share(table: Array, rng: np.random.Generator) -> float:
    """Return the share of items whose code is as if drawn without regard to their label.

    It is chosen so that labels drawn anew for the codes, from the mixed table, tell on average what the table does: 1
    where shuffled labels tell as much (in one draw of 40, where the table is not filled), 0 where nothing is left to
    chance. The share is found by bisection, to 1/256.
    """
    table = table[table.sum(1) > 0]
    sizes, observed = table.sum(1).astype(np.int64), mutual_nats(table)

    def redrawn(share: float) -> Array:
        mixture = mixed(table, share)
        draws = rng.multinomial(sizes, mixture / mixture.sum(1, keepdims=True), size=(CHANCE_DRAWS, len(sizes)))
        return np.array([mutual_nats(draw) for draw in draws])

    shuffled = redrawn(1.0)
    if (shuffled.mean() if is_filled(table) else shuffled.max()) >= observed - 1e-9:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(8):
        share = (low + high) / 2
        low, high = (share, high) if redrawn(share).mean() > observed else (low, share)
    return low


def resampled(
    items: Codes, statistic: Callable[[Sequence[Array], float], Array], resamples: int, seed: int
) -> Resampled:
    """Return a statistic of the tables of items less its bias, its values for samples, and the tables without chance.

    A sample draws items with replacement and gives the share of them that is chance the codes of other items. Its bias
    is what the samples tell beyond the tables from which they are drawn, with chance taken out.

    Args:
        items: (n, 4) label and codes.
        statistic: A function of the three tables and of the precision in nats.
        resamples: The number of samples; 0 for the statistic as it is.
        seed: Seed of the samples.
    """
    rng = np.random.default_rng(seed)
    n, shape = len(items), items.max(0) + 1
    tables = count_tables(items, shape)
    value = statistic(tables, GAP)
    if resamples == 0:
        return Resampled(value, value[None], np.zeros_like(value), tables)
    shares = [chance_share(table, rng) for table in tables]
    draws = []
    for _ in range(resamples):
        sample = items[rng.integers(0, n, n)]
        for column, share in enumerate(shares, 1):
            by_chance = rng.random(n) < share
            sample[by_chance, column] = rng.permutation(items[:, column])[by_chance]
        draws.append(statistic(count_tables(sample, shape), ROUGH))
    clean = [mixed(table, share) for table, share in zip(tables, shares, strict=True)]
    bias = np.mean(draws, 0) - statistic(clean, GAP)
    return Resampled(value - bias, np.array(draws), bias, clean)
