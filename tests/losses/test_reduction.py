"""The reduction of losses keeps the precision of the rows."""

import pytest
import torch

import modalign


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_are_normalised_in_the_precision_of_the_rows(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40, 6, generator=generator, dtype=torch.float64)
    weights = torch.rand(40, generator=generator).to(dtype)
    expected = modalign.info_nce(x, y, weights=weights.double())
    torch.testing.assert_close(modalign.info_nce(x, y, weights=weights), expected, rtol=1e-14, atol=0)
