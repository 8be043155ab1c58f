"""Reciprocity, hubs and duplicates against dense definitions."""

import numpy as np
import pytest
import torch
from tests.metrics.test_neighborhoods import data, mask

import modalign
from modalign.metrics.diagnostics import Duplicates, Hubness, duplicates, hubness, reciprocity
from modalign.neighbors import copies


@pytest.mark.parametrize("seed", range(3))
def test_reciprocity_and_hubness_of_the_dense_graph(seed: int) -> None:
    graph = modalign.knn(data(seed=seed)[0], 6)
    dense = mask(graph.indices, 70)
    into = dense.sum(0)
    result = hubness(graph)
    assert reciprocity(graph) == pytest.approx((dense * dense.T).sum() / dense.sum(), rel=1e-14)
    assert result.skewness == pytest.approx(((into - into.mean()) ** 3).mean() / into.std() ** 3, rel=1e-12)
    assert (result.largest, result.antihubs) == (into.max(), pytest.approx((into == 0).mean()))


def test_a_graph_without_hubs() -> None:
    ring = (torch.arange(6)[:, None] + torch.tensor([1, -1])) % 6
    assert hubness(ring) == Hubness(skewness=0.0, largest=2, antihubs=0.0)
    assert reciprocity(ring) == 1
    assert reciprocity(ring[:, :1]) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_duplicates_of_every_dtype(dtype: torch.dtype) -> None:
    rows = torch.randn(50, 3).to(dtype)
    assert duplicates(rows) == Duplicates(0, 0, 1)
    rows[7] = rows[20] = rows[21] = rows[3]
    rows[40] = rows[41]
    rows[11], rows[12], rows[13] = 0.0, -0.0, torch.finfo(dtype).tiny
    assert duplicates(rows) == Duplicates(items=4 + 2 + 2, groups=3, largest=4)
    assert duplicates(rows[:1]) == Duplicates(0, 0, 1)
    assert duplicates(rows[[5] * 9]) == Duplicates(9, 1, 9)


@pytest.mark.parametrize("shared", [1, 3])
def test_duplicates_are_no_guess_where_hashes_collide(shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 3, size=(60, 3)).astype(np.float32)
    counts = np.unique(rows, axis=0, return_counts=True)[1]
    expected = Duplicates(int(counts[counts > 1].sum()), int((counts > 1).sum()), int(counts.max()))
    assert duplicates(rows) == expected
    monkeypatch.setattr(copies, "_hashes", lambda block: block.sum(1).long() % shared)
    assert duplicates(rows) == expected
