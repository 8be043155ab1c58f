"""knn: every backend returns the neighbours of the float64 definition, index for index."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import modalign
from modalign import _core
from modalign.ops.knn import METRICS
from modalign.reference import knn as reference
from neighbors.searching import knn

pytestmark = pytest.mark.usefixtures("nan_filled_memory")

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# gallery rows, query rows (0: search itself), features, k
CASES = [(2, 0, 1, 1), (1, 3, 5, 1), (9, 0, 3, 8), (67, 0, 17, 10), (130, 5, 33, 4), (40, 40, 64, 40), (12, 0, 4096, 3)]
LARGE = [(1301, 0, 12, 10), (2050, 101, 8, 33)]


def same(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(actual[0].cpu(), expected[0]), "a wrong neighbour, or a wrong order"
    torch.testing.assert_close(actual[1].cpu(), expected[1].to(actual[1].dtype), rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=str)
def test_neighbours_are_those_of_the_definition(
    backend: str, device: str, case: tuple[int, int, int, int], dtype: torch.dtype, metric: str
) -> None:
    n, m, d, k = case
    if backend == "triton" and device == "cpu":
        # the interpreter takes a minute for a thousand rows; its tiles have 256 features, the last of three here 88
        n, m, d = min(n, 150), min(m, 50), min(d, 600)
    x = torch.randn(n, d, dtype=torch.float64).to(dtype)
    queries = torch.randn(m, d, dtype=torch.float64).to(dtype) if m else None
    on_device = None if queries is None else queries.to(device)
    if backend == "triton" and dtype == torch.float64:
        with pytest.raises(NotImplementedError, match=r"triton: dtype torch\.float64 \(takes"):
            knn(x.to(device), on_device, k, metric, backend)
        return
    same(knn(x.to(device), on_device, k, metric, backend), reference.knn(x, queries, k, metric))


def hard_sets() -> dict[str, Tensor]:
    """Return rows that a screen cannot order: differences that float32 loses, ties, and extreme sizes."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(70, 12, generator=generator)
    cluster = torch.randn(1, 12, generator=generator).expand(70, 12)
    return {
        "duplicates": base[torch.arange(70) % 5].clone(),
        "all rows equal": cluster.clone(),
        "zero rows": base * (torch.arange(70) % 3 > 0)[:, None],
        "near ties within rounding": cluster + 1e-7 * base,
        "large common mean": base + 1e4,
        "one huge row": base * torch.where(torch.arange(70) == 3, 1e18, 1.0)[:, None],
        "tiny rows": base * 1e-18,
        "denormals": base * 1e-40,
        "opposite rows": torch.cat([base[:35], -base[:35]]),
        "scaled copies": base[torch.arange(70) % 7] * 2.0 ** (torch.arange(70) % 11 - 5)[:, None],
    }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", hard_sets())
def test_sets_made_to_break_a_screen(backend: str, device: str, name: str, metric: str) -> None:
    x = hard_sets()[name]
    interpreted = (backend, device) == ("triton", "cpu")
    for k in (9, 69) if interpreted else (1, 9, 69):  # the lists that the first screen keeps, and those of the second
        same(knn(x.to(device), None, k, metric, backend), reference.knn(x, None, k, metric))


@pytest.mark.parametrize("metric", METRICS)
def test_float64_beyond_float32(metric: str) -> None:
    """Some rows are equal in float32, and the norms of others overflow there."""
    near, x = 1 + 1e-12 * torch.randn(60, 8, dtype=torch.float64), torch.randn(60, 8, dtype=torch.float64)
    for rows in (near, 1e100 * x):
        same(knn(rows, None, 7, metric, "cpp"), reference.knn(rows, None, 7, metric))
    expected = modalign.knn(x, 7, metric=metric).indices
    for scale in (2.0**-900, 2.0**-450, 2.0**450, 2.0**508):
        assert torch.equal(modalign.knn(x * scale, 7, metric=metric).indices, expected)


def test_the_core_refuses_what_would_mislead_its_bound() -> None:
    for value in (torch.nan, torch.inf, 1e300):
        x = torch.ones(4, 2, dtype=torch.float64)
        x[2, 1] = value
        with pytest.raises(ValueError, match="rows must be finite and their squares fit float64"):
            knn(x, None, 1, "dot", "cpp")


def test_very_wide_rows_stay_within_the_integers_of_a_screen() -> None:
    """Products of codes of 127 overflow 32 bits from 133,145 entries on."""
    rows = torch.zeros(60, 1 << 18, dtype=torch.int8)
    rows[torch.arange(60), torch.arange(60) // 2 * 7 + 1] = 100  # after the rotation all entries have one size
    for screen in (*_core.screens(), "auto"):
        _core.use_screen(screen)
        indices = modalign.knn(rows, 1).indices[:, 0]
        _core.use_screen("auto")
        assert torch.equal(indices, torch.arange(60) ^ 1), screen


def test_subnormal_halves_count_where_subnormals_are_flushed(backend: str, device: str) -> None:
    """A float16 below 6e-5 is subnormal, the same number in float32 is not."""
    x = (1e-5 * torch.randn(60, 32)).half().to(device)
    expected = reference.knn(x.cpu(), None, 5, "cosine")
    torch.set_flush_denormal(True)
    try:
        result = knn(x, None, 5, "cosine", backend)
    finally:
        torch.set_flush_denormal(False)
    same(result, expected)


def test_a_duplicate_is_a_neighbour_and_the_row_itself_is_not(backend: str, device: str) -> None:
    x = torch.randn(6, 4, device=device).repeat(2, 1)
    indices = modalign.knn(x, 1, backend=backend).indices[:, 0]
    assert indices.tolist() == [*range(6, 12), *range(6)]


def test_ties_go_to_the_lower_index(backend: str, device: str) -> None:
    x = torch.ones(12, 3, device=device)
    indices = modalign.knn(x, 4, backend=backend).indices.tolist()
    assert indices[0] == [1, 2, 3, 4]
    assert indices[2] == [0, 1, 3, 4]
    assert indices[11] == [0, 1, 2, 3]


def test_thread_count_and_instruction_set_change_nothing() -> None:
    x = torch.randn(2500, 40)
    expected = reference.knn(x, None, 10, "cosine")
    before = torch.get_num_threads()
    for threads, metric in itertools.product((1, 2, 5), ["cosine"]):
        torch.set_num_threads(threads)
        same(knn(x, None, 10, metric, "cpp"), expected)
    torch.set_num_threads(before)


def test_numpy_and_memory_maps_in_numpy_out(tmp_path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    result = modalign.knn(mapped, 3)
    assert isinstance(result.indices, np.ndarray)
    assert result.indices.dtype == np.int64
    assert np.array_equal(result.indices, modalign.knn(torch.from_numpy(x), 3).indices.numpy())
    assert np.array_equal(modalign.knn(x.astype(">f4"), 3).indices, result.indices)
    assert np.array_equal(modalign.knn(x[::2], 3).indices, modalign.knn(x[::2].copy(), 3).indices)


def test_the_order_of_the_rows_changes_only_their_names() -> None:
    x = torch.randn(200, 9)
    order = torch.randperm(200)
    renamed = order[modalign.knn(x[order], 5).indices]
    assert torch.equal(renamed, modalign.knn(x, 5).indices[order])
