"""The tile table has a row for every call, and a refusal lists the sizes that exist."""

import pytest
import torch

from modalign.kernels.shared.tiles import ARCHITECTURES, TABLE, VARIANTS, architecture, tile

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "interpreter"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_width_has_a_tile(dtype: torch.dtype, name: str) -> None:
    for d in (1, 2, 63, 64, 65, 128, 129, 1000, 4096, 1 << 20):
        for loss in ("info_nce", "sigmoid_loss"):
            for variant in VARIANTS:
                assert "BLOCK_V" not in tile(f"{loss}_forward", dtype, d, name, variant=variant).blocks
                assert "BLOCK_V" not in tile(f"{loss}_weights", dtype, d, name, variant=variant).blocks
                assert tile(f"{loss}_backward", dtype, d, name, variant=variant).blocks["BLOCK_V"] > 0
        assert tile("knn_exact", dtype, d, name).blocks["BLOCK_N"] > 0
    for k in (1, 16, 17, 5000):
        assert tile("neighbor_overlap", torch.int64, k, name).blocks["BLOCK_K"] >= min(k, 16)


def test_the_narrowest_row_that_fits_is_chosen() -> None:
    assert tile("info_nce_backward", torch.float16, 128, "sm_90").blocks["BLOCK_V"] == 128
    assert tile("info_nce_backward", torch.float16, 129, "sm_90").blocks["BLOCK_V"] == 256
    for kernel in {row.kernel for row in TABLE}:
        for name in (*ARCHITECTURES, "interpreter"):
            for dtype in FLOATS:
                for variant in VARIANTS:
                    rows = [row for row in TABLE if row.kernel == kernel and dtype in row.dtypes]
                    sizes = [row.up_to for row in rows if name in row.architectures and variant in row.variants]
                    assert sizes == sorted(set(sizes)), "the first row that fits must be the narrowest"


@pytest.mark.parametrize("name", [*ARCHITECTURES, "interpreter"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_recomputed_logits_have_the_bits_of_stored_ones(dtype: torch.dtype, name: str) -> None:
    """Features are summed in chunks of BLOCK_D, which decide the last bit of a logit."""
    for variant in VARIANTS:
        chunks = {
            tile(kernel, dtype, 512, name, variant=variant).blocks["BLOCK_D"]
            for kernel in ("info_nce_forward", "info_nce_weights")
        }
        assert len(chunks) == 1


def test_sizes_are_powers_of_two() -> None:
    for row in TABLE:
        for size in (*row.tile.blocks.values(), row.tile.warps):
            assert size & (size - 1) == 0, row


def test_the_refusal_of_a_size_lists_the_sizes_that_exist() -> None:
    with pytest.raises(
        NotImplementedError, match=r"knn_screen: no tile for torch.float16, size 129, sm_90 .*\[32, 128\]"
    ):
        tile("knn_screen", torch.float16, 129, "sm_90")
    with pytest.raises(NotImplementedError, match=r"no tile for torch\.float64"):
        tile("info_nce_forward", torch.float64, 8, "sm_90")


def test_kernels_of_this_process_are_interpreted() -> None:
    assert architecture(torch.device("cpu")) == "interpreter"
