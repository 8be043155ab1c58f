"""The screen of large galleries appends each row that reaches a threshold once, and the search stays exact."""

import itertools

import pytest
import torch
from torch import Tensor

from modalign.kernels.knn import search as kernels
from modalign.kernels.knn import survivors as module
from modalign.kernels.knn.screen import Screen, unpack_keys
from modalign.reference import knn as reference

METRICS = ("cosine", "dot", "euclidean")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record the passes of the search in order; galleries are sampled from 200 rows on, with room for few survivors."""
    calls: list[tuple[str, int]] = []
    for name in ("search_survivors", "search_lists", "search_gallery"):
        real = getattr(kernels._Search, name)

        def spy(self, rows: Tensor, *args: object, _real=real, _name=name, **options: object):
            calls.append((_name, len(rows)))
            return _real(self, rows, *args, **options)

        monkeypatch.setattr(kernels._Search, name, spy)
    monkeypatch.setattr(kernels, "LARGE", 200)
    monkeypatch.setattr(kernels, "ROOM", 3)
    return calls


def assert_exact(x: Tensor, queries: Tensor | None, k: int, metric: str) -> None:
    indices, scores, report = kernels.knn(x, queries, k, metric)
    assert report[1] + report[2] == len(indices)
    expected = reference.knn(x, queries, k, metric)
    assert torch.equal(indices, expected[0])
    assert torch.equal(scores, expected[1])


def all_bounds(screen: Screen, n: int, m: int) -> Tensor:
    """Return the bound u of every pair, from lists that keep all rows of 128 columns at a time."""
    rows, bounds = torch.arange(m), torch.empty(m, n)
    for columns in torch.arange(n).split(128):
        highest, ids = screen.restrict_to(columns).keep_highest(rows, torch.full_like(rows, -1), 128)
        bounds[:, columns] = torch.empty(m, len(columns)).scatter_(
            1, ids[:, : len(columns)], highest[:, : len(columns)]
        )
    return bounds


def collected(keys: Tensor) -> list[dict[int, float]]:
    bounds, ids = unpack_keys(keys)
    return [
        {int(i): float(u) for u, i in zip(row_bounds, row_ids, strict=True) if i >= 0}
        for row_bounds, row_ids in zip(bounds, ids, strict=True)
    ]


@pytest.mark.parametrize(
    ("n", "dtype", "metric"),
    [*((n, torch.float32, "euclidean") for n in (40, 128, 200)), *itertools.product([100], DTYPES, METRICS)],
)
def test_rows_that_reach_the_threshold_are_appended_once(n: int, dtype: torch.dtype, metric: str) -> None:
    """Append by symmetry and without it, with one to four rows of tiles and the bounds of the lists' screen."""
    x = torch.randn(n, 11).to(dtype)
    screen, rows = Screen(x, x, metric, narrow=dtype == torch.float32), torch.arange(n)
    bounds = all_bounds(screen, n, n).fill_diagonal_(-torch.inf)
    thresholds = bounds.quantile(0.9, dim=1)
    expected = [
        {int(j): float(row[j]) for j in (row >= t).nonzero()[:, 0]} for row, t in zip(bounds, thresholds, strict=True)
    ]
    for selected in (None, rows):
        keys, counts = module.find_survivors(screen, selected, rows, thresholds, capacity=n)
        assert counts.tolist() == [len(row) for row in expected]
        # the interpreter multiplies tiles by NumPy, whose rounding depends on the shape of a tile and on the processor;
        # the bound is that of sums of 11 products, together up to 30, in float32
        for survivors, bounds_of_row in zip(collected(keys), expected, strict=True):
            assert survivors == pytest.approx(bounds_of_row, rel=1e-6, abs=11 * 30 * 2**-24)


def test_survivors_beyond_the_capacity_are_counted_but_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAMS_AT_ONCE", 3)  # several launches, each of rows continues the last one
    x = torch.randn(200, 6)
    screen, rows = Screen(x, x, "dot"), torch.arange(200)
    thresholds = torch.where(rows % 2 == 0, -torch.inf, torch.inf)
    keys, counts = module.find_survivors(screen, None, rows, thresholds, capacity=16)
    assert counts.tolist() == [199, 0] * 100
    assert [len(row) for row in collected(keys)] == [16, 0] * 100


def test_selected_queries_and_excluded_rows() -> None:
    x, queries = torch.randn(90, 5), torch.randn(70, 5)
    screen, rows = Screen(x, queries, "euclidean"), torch.tensor([3, 60, 5])
    thresholds = torch.full((3,), -torch.inf)
    keys, counts = module.find_survivors(screen, rows, torch.tensor([-1, 7, 8]), thresholds, capacity=128)
    assert counts.tolist() == [90, 89, 89]
    assert [sorted(set(range(90)) - set(row)) for row in collected(keys)] == [[], [7], [8]]


# test_rows_that_reach_the_threshold_are_appended_once has every dtype with every metric
@pytest.mark.parametrize(
    ("dtype", "metric"),
    [*((torch.float32, metric) for metric in METRICS), (torch.float16, "dot"), (torch.bfloat16, "euclidean")],
    ids=str,
)
@pytest.mark.parametrize("self_search", [True, False], ids=["self_search", "queries"])
def test_neighbours_agree_with_the_definition(self_search: bool, dtype: torch.dtype, metric: str, passes: list) -> None:
    x = torch.randn(200, 9).to(dtype)
    assert_exact(x, None if self_search else torch.randn(70, 9).to(dtype), 10, metric)
    assert passes[0] == ("search_survivors", 200 if self_search else 70)
    assert sum(rows for _, rows in passes[1:]) <= 12, "the survivors of nearly all rows fit"


@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_a_group_are_no_neighbours(metric: str, passes: list) -> None:
    """Groups of seven, and one so large that a sample of the gallery has fewer than k candidates for its rows."""
    x, queries = torch.randn(200, 9), torch.randn(70, 9)
    groups, query_groups = torch.arange(200) // 7, torch.arange(70)
    groups[:180] = -1
    query_groups[:5] = -1
    for table, table_groups in ((None, None), (queries, query_groups)):
        neighbors = kernels.knn(x, table, 10, metric, groups=groups, query_groups=table_groups)
        expected = reference.knn(x, table, 10, metric, groups=groups, query_groups=table_groups)
        assert torch.equal(neighbors[0], expected[0])
        assert torch.equal(neighbors[1], expected[1])
    assert ("search_survivors", 200) in passes


def test_a_row_may_have_fewer_than_k_neighbours(passes: list) -> None:
    x, groups = torch.randn(200, 6), torch.zeros(200, dtype=torch.int64)
    groups[:3] = 1
    indices, scores, _ = kernels.knn(x, None, 5, "dot", groups=groups)
    assert bool((indices[3:, 3:] == -1).all() & (scores[3:, 3:] == -torch.inf).all())
    assert torch.equal(indices[3:, :3].sort(1).values, torch.arange(3).expand(197, 3))


@pytest.mark.parametrize("metric", METRICS)
def test_a_threshold_is_reached_by_k_rows(metric: str, passes: list) -> None:
    x = torch.randn(200, 9) * torch.logspace(-3, 3, 200)[:, None]
    search, rows = kernels._Search(x, None, 10, metric), torch.arange(200)
    screen = search.make_screen(True)
    best = reference.knn(x, None, 10, metric)[1][:, -1]
    lowest, margin = screen.in_bound_units(best, rows)
    thresholds = search.thresholds(screen, rows)
    assert bool((thresholds.double() <= lowest - margin).all())
    assert bool(thresholds.isfinite().all())


def test_rows_with_too_many_survivors_are_searched_by_lists(passes: list) -> None:
    """80 rows are nearer to each other than float16 resolves: they have more survivors than places."""
    x = torch.randn(220, 12)
    x[100:180] = x[100] + 1e-6 * torch.randn(80, 12)
    assert_exact(x, None, 5, "cosine")
    assert passes[0] == ("search_survivors", 220)
    assert passes[1][0] == "search_lists"
    assert 80 <= passes[1][1] < 120


def test_a_query_may_need_more_than_its_highest_survivors(passes: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """35 near ties: more than the 32 survivors that are scored first, fewer than there are places."""
    monkeypatch.setattr(kernels, "ROOM", 4)
    x = torch.randn(260, 12)
    x[100:136] = x[100] + 1e-6 * torch.randn(36, 12)
    assert_exact(x, None, 5, "cosine")
    assert passes == [("search_survivors", 260)]


@pytest.mark.parametrize("metric", METRICS)
def test_ties_duplicates_and_zero_rows(metric: str, passes: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LARGE", 80)
    monkeypatch.setattr(kernels, "ROOM", 1)
    x = torch.cat([torch.randint(-1, 2, (80, 4)).float(), torch.zeros(10, 4)])
    assert_exact(x, None, 3, metric)
    assert_exact(x, x[-20:].clone(), 3, metric)
    assert [name for name, _ in passes].count("search_survivors") == 2


def test_rows_beyond_the_range_of_float32(passes: list) -> None:
    """Rows of all magnitudes: with "dot" each query has its own scale, so no pair serves both of its rows."""
    x = torch.randn(200, 6) * torch.logspace(-40, 36, 200)[:, None]
    assert_exact(x, None, 5, "dot")


@pytest.mark.parametrize("k", [25, 130])
def test_more_neighbours_than_a_list_keeps(k: int, passes: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond k = 120, galleries of fewer than 32,768 rows are sampled too."""
    monkeypatch.setattr(kernels, "LARGE", 200 if k == 25 else 1 << 15)
    monkeypatch.setattr(kernels, "ROOM", 3 if k == 25 else 2)
    x = torch.randn(400 if k == 25 else 2100, 5)
    assert_exact(x, x[:40].clone(), k, "euclidean")
    assert passes[0] == ("search_survivors", 40)
    assert passes[1:] == [] or passes[1][1] <= 5


def test_rows_are_searched_in_panels(monkeypatch: pytest.MonkeyPatch, passes: list) -> None:
    monkeypatch.setattr(kernels, "SURVIVORS_AT_ONCE", 48 * 80)
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 30)
    assert_exact(torch.randn(200, 4), None, 3, "cosine")
    assert [rows for name, rows in passes if name == "search_survivors"] == [80, 80, 40]
