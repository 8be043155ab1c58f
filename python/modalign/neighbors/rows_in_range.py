"""The range of float64 rows in which a search works: their squares must neither overflow nor vanish.

Rows outside it are multiplied by powers of two, which changes no digit, and the scores are multiplied back. The rule
holds for every search: in memory and block by block, exact and approximate. torch works on pieces in the calling
thread, whose arithmetic ``knn`` sets: threads of torch may take subnormal numbers as 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from modalign.common.deterministic import PIECE, pieces

__all__ = ["Scale", "are_in_range", "find_scale"]

SMALLEST, LARGEST = 2.0**-400, 2.0**400  # the largest entry of a row lies between them, or is 0


@dataclasses.dataclass(frozen=True)
class Scale:
    """The powers of two that bring rows into range.

    Attributes:
        exponent: All rows are multiplied by 2^-exponent, so that the largest entry of all is from 1/2 to 1. None: each
            row is multiplied by its own power, which a cosine ignores.
    """

    exponent: int | None

    def apply(self, rows: Tensor) -> Tensor:
        """Multiply float64 rows [n, d] in place, and return them."""
        largest = _largest(rows) if self.exponent is None else None
        for piece, columns in pieces(rows):
            exponents = torch.tensor(self.exponent) if largest is None else _exponents(largest[piece])[:, None]
            _multiply(rows[piece, columns], -exponents)
        return rows

    def restore(self, scores: Tensor) -> Tensor:
        """Return the scores of the rows as they were, which takes the place of ``scores``."""
        if self.exponent:
            for piece in pieces(scores):
                _multiply(scores[piece], torch.tensor(2 * self.exponent))
        return scores


def find_scale(blocks: Iterable[Tensor], metric: str) -> Scale | None:
    """Return how rows must be scaled, None if they all lie in the range.

    Args:
        blocks: Float64 rows [., d], all that take part in a search: the gallery's and the queries'.
        metric: "cosine", "dot" or "euclidean".
    """
    outside, exponent = False, None
    for rows in blocks:
        for largest in torch.split(_largest(rows), PIECE):
            outside |= not are_in_range(largest)
            if bool(largest.any()):  # rows of zeros have no exponent
                top = int(_exponents(largest.max()))
                exponent = top if exponent is None else max(top, exponent)
    if not outside:
        return None
    return Scale(None if metric == "cosine" else exponent)


def are_in_range(largest: Tensor) -> bool:
    """Return whether rows with these largest absolute values [n] need no scaling."""
    return bool(((largest == 0) | ((largest > SMALLEST) & (largest < LARGEST))).all())


def _largest(rows: Tensor) -> Tensor:
    """Return the largest absolute value of each row [n]."""
    largest = rows.new_zeros(len(rows))
    for piece, columns in pieces(rows):
        low, high = torch.aminmax(rows[piece, columns], dim=1)
        torch.maximum(largest[piece], torch.maximum(-low, high), out=largest[piece])
    return largest


def _exponents(values: Tensor) -> Tensor:
    return torch.frexp(values).exponent


def _multiply(values: Tensor, exponents: Tensor) -> None:
    """Multiply by 2^exponents, in two steps: 2^1074 is not a float64."""
    half = exponents // 2
    values.ldexp_(half).ldexp_(exponents - half)
