"""The blocks of S that ranks compute cover it once, in equal shares."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from modalign.distributed.ranks import Ranks

SIZES = [(5,), (4, 4), (5, 1), (3, 3, 3), (4, 4, 4, 4), (3, 1, 5, 2), (2,) * 5, (6,) * 8, (1, 3, 2, 1, 4, 2)]


def covered(sizes: tuple[int, ...], *, one_stream: bool, merged: bool, most: int = 100) -> list[np.ndarray]:
    """Return, for each rank, how often its blocks cover each entry of S."""
    counts = []
    for rank in range(len(sizes)):
        ranks = Ranks("", rank, sizes)
        count = np.zeros((ranks.total, ranks.total), int)
        count[ranks.own, ranks.own] += 1
        blocks = ranks.merged_blocks(one_stream=one_stream) if merged else ranks.blocks(one_stream=one_stream)
        for block in blocks:
            for piece in block.pieces(most):
                count[ranks.own][piece.rows, piece.columns] += 1
            assert [piece.is_last for piece in block.pieces(most)][-1]
        counts.append(count)
    return counts


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("merged", "most"), [(False, 100), (True, 100), (False, 2)])
def test_every_entry_is_computed_once(sizes: tuple[int, ...], merged: bool, most: int) -> None:
    assert (sum(covered(sizes, one_stream=False, merged=merged, most=most)) == 1).all()
    half = sum(covered(sizes, one_stream=True, merged=merged, most=most))
    diagonal = np.zeros_like(half)
    starts = np.cumsum((0, *sizes))
    for start, stop in itertools.pairwise(starts):
        diagonal[start:stop, start:stop] = 1
    assert (half + half.T - diagonal == 1).all()  # S is symmetric: an entry or its mirror


@pytest.mark.parametrize("ranks", range(1, 10))
@pytest.mark.parametrize("one_stream", [False, True])
def test_equal_shards_have_equal_work(ranks: int, one_stream: bool) -> None:
    sizes = (6,) * ranks
    work = [int(count.sum()) for count in covered(sizes, one_stream=one_stream, merged=False)]
    own = 36 // 2 if one_stream else 0  # half of the own block is enough where S is symmetric
    assert {share - own for share in work} == {(6 * ranks) ** 2 // (2 * ranks if one_stream else ranks)}
