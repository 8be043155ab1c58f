"""The proof of the exact k-NN: bounds hold, proved queries are right, and unproved queries are searched again."""

import pytest
import torch
from torch import Tensor

from modalign.kernels.knn import search as kernels
from modalign.kernels.knn.screen import Screen, power_of_two
from modalign.reference import knn as reference

METRICS = ("cosine", "dot", "euclidean")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record the passes of the search in order, such as ("narrow screen 32", rows) and ("exhaustive", rows)."""
    calls: list[tuple[str, int]] = []
    search_lists, search_gallery = kernels._Search.search_lists, kernels._Search.search_gallery

    def spy_screened(self, rows: Tensor, kept: int, narrow: bool):
        calls.append((f"narrow screen {kept}" if narrow else f"screen {kept}", len(rows)))
        return search_lists(self, rows, kept, narrow)

    def spy_exhaustive(self, rows: Tensor):
        calls.append(("exhaustive", len(rows)))
        return search_gallery(self, rows)

    monkeypatch.setattr(kernels._Search, "search_lists", spy_screened)
    monkeypatch.setattr(kernels._Search, "search_gallery", spy_exhaustive)
    return calls


def assert_exact(x: Tensor, queries: Tensor | None, k: int, metric: str) -> None:
    indices, scores, report = kernels.knn(x, queries, k, metric)
    assert report[1] + report[2] == len(indices)
    expected = reference.knn(x, queries, k, metric)
    assert torch.equal(indices, expected[0])
    assert torch.equal(scores, expected[1]), "scores do not depend on the backend"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_well_spread_rows_are_proved_by_the_first_screen(dtype: torch.dtype, metric: str, passes: list) -> None:
    assert_exact(torch.randn(150, 24).to(dtype), None, 10, metric)
    assert passes == [("narrow screen 32" if dtype == torch.float32 else "screen 32", 150)]


def families(dtype: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(3)
    rows = torch.randn(40, 13)
    size = torch.logspace(-4, 4, 40)[:, None] if dtype == torch.float16 else torch.logspace(-36, 36, 40)[:, None]
    return {
        "unit": rows,
        "every size": size * rows.clamp(-3, 3),
        "one size of 1e-37": 1e-37 * rows,
        "zero rows": rows * (torch.arange(40) % 2)[:, None],
        "positive": rows.abs() + 10,
        "clustered": 5 + 1e-6 * rows,
    }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", families(torch.float32))
@pytest.mark.parametrize("narrow", [False, True])
def test_the_bound_is_above_every_score(narrow: bool, family: str, dtype: torch.dtype, metric: str) -> None:
    if narrow and dtype != torch.float32:
        pytest.skip("half-precision rows are their own codes")
    x = families(dtype)[family].to(dtype)
    screen, rows = Screen(x, x, metric, narrow=narrow), torch.arange(40)
    bounds, ids = screen.keep_highest(rows, torch.full_like(rows, -1), 128)
    assert bool((ids[:, :40] >= 0).all() & (ids[:, 40:] == -1).all()), "all 40 rows are kept, no more"
    scores = reference.scores(x, x, metric).gather(1, ids[:, :40])
    for place in range(40):
        lowest, margin = screen.in_bound_units(scores[:, place], rows)
        assert bool((lowest - margin <= bounds[:, place].double()).all())


@pytest.mark.parametrize("metric", METRICS)
def test_near_ties_go_through_every_level(metric: str, passes: list) -> None:
    """200 rows are closer than float32 resolves: no query is proved, and all are searched exhaustively and exactly."""
    x = torch.randn(1, 8) + 3e-7 * torch.randn(200, 8)
    assert_exact(x, x[:3].clone(), 6, metric)
    assert passes == [("narrow screen 32", 3), ("narrow screen 128", 3), ("screen 128", 3), ("exhaustive", 3)]


def test_only_unproved_rows_are_searched_again(passes: list) -> None:
    """A tight cluster of 60 among well-spread rows: more than 32 rows are near a tie, fewer than 128."""
    x = torch.randn(160, 12)
    x[40:100] = x[40] + 1e-7 * torch.randn(60, 12)
    assert_exact(x, None, 5, "cosine")
    (_, first), (second_name, second) = passes[:2]
    assert (first, second_name) == (160, "narrow screen 128")
    assert 60 <= second < 160, "only the cluster and the rows near it are searched again"


def test_a_tie_at_the_edge_of_the_kept_rows_is_not_proved() -> None:
    """The k-th score equals that of discarded rows, so only the index decides, and the screen's order is not exact."""
    x = torch.ones(70, 5)
    x[40:] = 1 + 2**-12
    for metric in METRICS:
        assert_exact(x, None, 20, metric)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_zero_queries_are_proved_by_the_first_screen(metric: str, passes: list) -> None:
    """All scores and bounds are 0, so the neighbours are the lowest indices."""
    x = torch.randn(90, 6)
    assert_exact(x, torch.zeros(4, 6), 7, metric)
    assert passes == [("narrow screen 32", 4)]


@pytest.mark.parametrize("metric", METRICS)
def test_a_duplicated_gallery_is_ordered_by_index(metric: str) -> None:
    x = torch.randn(3, 7).repeat(60, 1)
    assert_exact(x, x[:2].clone(), 70, metric)


@pytest.mark.parametrize("k", [119, 120, 121, 200, 249])
def test_k_beyond_the_rows_that_a_screen_keeps(k: int, passes: list) -> None:
    assert_exact(torch.randn(250, 4), torch.randn(3, 4), k, "dot")
    assert passes[0][0] == ("narrow screen 128" if k <= 120 else "exhaustive")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [2, 5, 33, 60])
def test_k_may_be_all_other_rows(n: int, metric: str, passes: list) -> None:
    assert_exact(torch.randn(n, 3), None, n - 1, metric)
    assert len(passes) == 1, "no row is discarded, so no query needs a proof"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e15, 1e37])
def test_rows_whose_products_leave_the_range_of_float32(size: float, metric: str, passes: list) -> None:
    x = torch.randn(140, 6).clamp(-3, 3) * size
    x[17] = 0
    assert_exact(x, None, 4, metric)
    assert passes[0] == ("narrow screen 32", 140)
    assert sum(rows for _, rows in passes[1:]) <= 14, "scaled by a power of two, most rows are proved"


@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_all_magnitudes(metric: str) -> None:
    assert_exact(torch.randn(80, 6) * torch.logspace(-40, 36, 80)[:, None], None, 5, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_subnormal_bfloat16(metric: str) -> None:
    """Scores of bfloat16 rows below 1e-38 are exact too."""
    assert_exact((1e-38 * torch.randn(50, 3)).bfloat16(), None, 6, metric)


def test_splits_of_the_gallery_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(300, 5)
    queries = torch.randn(4, 5)
    for programs in (1, 2, 256):
        monkeypatch.setattr("modalign.kernels.knn.screen.PROGRAMS", programs)
        assert_exact(x, queries, 9, "euclidean")


def test_rows_are_searched_in_blocks(monkeypatch: pytest.MonkeyPatch, passes: list) -> None:
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 16)
    monkeypatch.setattr(kernels, "SCORES_AT_ONCE", 200)
    assert_exact(torch.randn(40, 4), None, 3, "cosine")
    assert [rows for _, rows in passes] == [16, 16, 8]
    assert_exact(torch.ones(40, 4), torch.ones(12, 4), 36, "cosine")
    assert [rows for name, rows in passes if name == "exhaustive"] == []
    assert_exact(torch.randn(140, 4), torch.randn(3, 4), 130, "cosine")
    assert [rows for name, rows in passes if name == "exhaustive"] == [1, 1, 1]


def test_powers_of_two_are_exact() -> None:
    exponents = torch.arange(-1022, 1024)
    assert power_of_two(exponents).tolist() == [2.0**e for e in range(-1022, 1024)]
