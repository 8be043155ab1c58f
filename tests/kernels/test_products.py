"""The cost model of the backward products, and the blocks of weights."""

import pytest
import torch

from modalign.kernels.losses import products
from modalign.kernels.losses.products import blocks, cheapest_schedule


def test_wide_tables_are_banded_and_narrow_ones_fused() -> None:
    """At 256 features, recomputing the logits costs less than writing and reading weights; at 512 it costs more."""
    for dtype in (torch.float16, torch.bfloat16):
        assert [
            cheapest_schedule(dtype, d, width=d, products=2, block_v=256 if d > 128 else 128) for d in (64, 128, 256)
        ] == 3 * ["fused"]
        assert [cheapest_schedule(dtype, d, width=d, products=2, block_v=256) for d in (512, 768, 1024)] == 3 * [
            "banded"
        ]
    assert [cheapest_schedule(torch.float32, d, width=d, products=2, block_v=128) for d in (32, 128, 512)] == [
        "fused",
        "banded",
        "banded",
    ]


@pytest.mark.parametrize("size", [(3, 10, 10), (2, 5000, 9000), (1, 100_000, 100_000), (1, 1, 50_000_000), (0, 5, 5)])
def test_blocks_hold_every_entry_once_and_little_memory(size: tuple[int, int, int]) -> None:
    b, n, m = size
    parts = list(blocks(b, n, m, 2))
    assert sum(block.problems * block.rows * block.cols for block in parts) == b * n * m
    assert len({(block.problem, block.row, block.col) for block in parts}) == len(parts)
    for block in parts:
        assert block.problems * block.rows * block.cols * 2 <= products.BAND_BYTES
        assert block.problems == 1 or (block.rows, block.cols) == (n, m)
