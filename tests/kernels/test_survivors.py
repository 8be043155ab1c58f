"""Threshold and append: what reaches a threshold is appended once, by symmetry too, and the answer is exact."""

import itertools

import pytest
import torch
from torch import Tensor

from modalign.kernels.knn import search as kernels
from modalign.kernels.knn import survivors as module
from modalign.kernels.knn.screen import Screen, unpacked
from modalign.reference import knn as reference

METRICS = ("cosine", "dot", "euclidean")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was searched, in order, when galleries are large from 200 rows on and rows have room for few survivors."""
    seen: list[tuple[str, int]] = []
    for name in ("survived", "screened", "exhaustive"):
        real = getattr(kernels._Search, name)

        def spy(self, which: Tensor, *rest: object, _real=real, _name=name, **more: object):
            seen.append((_name, len(which)))
            return _real(self, which, *rest, **more)

        monkeypatch.setattr(kernels._Search, name, spy)
    monkeypatch.setattr(kernels, "LARGE", 200)
    monkeypatch.setattr(kernels, "ROOM", 3)
    return seen


def same(x: Tensor, queries: Tensor | None, k: int, metric: str) -> None:
    indices, scores, report = kernels.knn(x, queries, k, metric)
    assert report[1] + report[2] == len(indices)
    expected = reference.knn(x, queries, k, metric)
    assert torch.equal(indices, expected[0])
    assert torch.equal(scores, expected[1])


def all_bounds(screen: Screen, n: int, m: int) -> Tensor:
    """u of every pair, from lists that keep all of 128 columns at a time."""
    which, bounds = torch.arange(m), torch.empty(m, n)
    for columns in torch.arange(n).split(128):
        found, ids = screen.over(columns).highest(which, torch.full_like(which, -1), 128)
        bounds[:, columns] = torch.empty(m, len(columns)).scatter_(1, ids[:, : len(columns)], found[:, : len(columns)])
    return bounds


def collected(keys: Tensor) -> list[dict[int, float]]:
    bounds, ids = unpacked(keys)
    return [
        {int(i): float(u) for u, i in zip(row, own, strict=True) if i >= 0}
        for row, own in zip(bounds, ids, strict=True)
    ]


@pytest.mark.parametrize(
    ("n", "dtype", "metric"),
    [*((n, torch.float32, "euclidean") for n in (40, 128, 190, 256, 300)), *itertools.product([150], DTYPES, METRICS)],
)
def test_what_reaches_the_threshold_is_appended_once(n: int, dtype: torch.dtype, metric: str) -> None:
    """One to five rows of tiles, odd and even: by symmetry and without it, with the bounds of the lists' screen."""
    x = torch.randn(n, 11).to(dtype)
    screen, which = Screen(x, x, metric, narrow=dtype == torch.float32), torch.arange(n)
    bounds = all_bounds(screen, n, n).fill_diagonal_(-torch.inf)
    thresholds = bounds.quantile(0.9, dim=1)
    expected = [
        {int(j): float(row[j]) for j in (row >= t).nonzero()[:, 0]} for row, t in zip(bounds, thresholds, strict=True)
    ]
    for own in (None, which):
        keys, counts = module.survivors(screen, own, which, thresholds, n)
        assert counts.tolist() == [len(row) for row in expected]
        assert collected(keys) == expected


def test_too_many_are_counted_and_none_is_written_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAMS_AT_ONCE", 3)  # launches go on where the last one ended
    x = torch.randn(200, 6)
    screen, which = Screen(x, x, "dot"), torch.arange(200)
    thresholds = torch.where(which % 2 == 0, -torch.inf, torch.inf)
    keys, counts = module.survivors(screen, None, which, thresholds, 16)
    assert counts.tolist() == [199, 0] * 100
    assert [len(row) for row in collected(keys)] == [16, 0] * 100


def test_which_rows_and_excluded_ones() -> None:
    x, queries = torch.randn(90, 5), torch.randn(70, 5)
    screen, which = Screen(x, queries, "euclidean"), torch.tensor([3, 60, 5])
    keys, counts = module.survivors(screen, which, torch.tensor([-1, 7, 8]), torch.full((3,), -torch.inf), 128)
    assert counts.tolist() == [90, 89, 89]
    assert [sorted(set(range(90)) - set(row)) for row in collected(keys)] == [[], [7], [8]]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("itself", [True, False], ids=["itself", "queries"])
def test_the_neighbours_are_the_definitions(itself: bool, dtype: torch.dtype, metric: str, passes: list) -> None:
    x = torch.randn(330, 9).to(dtype)
    same(x, None if itself else torch.randn(70, 9).to(dtype), 10, metric)
    assert passes[0] == ("survived", 330 if itself else 70)
    assert sum(rows for _, rows in passes[1:]) <= 12, "the sample's thresholds leave room for nearly all"


@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_a_group_are_no_neighbours(metric: str, passes: list) -> None:
    """Groups of seven, and one so large that a sample of the gallery holds fewer than k others for its rows."""
    x, queries = torch.randn(330, 9), torch.randn(70, 9)
    groups, query_groups = torch.arange(330) // 7, torch.arange(70)
    groups[:300] = -1
    query_groups[:5] = -1
    for rows, of_rows in ((None, None), (queries, query_groups)):
        found = kernels.knn(x, rows, 10, metric, groups=groups, query_groups=of_rows)
        expected = reference.knn(x, rows, 10, metric, groups=groups, query_groups=of_rows)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    assert ("survived", 330) in passes


def test_a_row_may_have_fewer_neighbours_than_asked_for(passes: list) -> None:
    x, groups = torch.randn(300, 6), torch.zeros(300, dtype=torch.int64)
    groups[:3] = 1
    indices, scores, _ = kernels.knn(x, None, 5, "dot", groups=groups)
    assert bool((indices[3:, 3:] == -1).all() & (scores[3:, 3:] == -torch.inf).all())
    assert torch.equal(indices[3:, :3].sort(1).values, torch.arange(3).expand(297, 3))


@pytest.mark.parametrize("metric", METRICS)
def test_a_threshold_is_reached_by_k_rows(metric: str, passes: list) -> None:
    x = torch.randn(300, 9) * torch.logspace(-3, 3, 300)[:, None]
    search, which = kernels._Search(x, None, 10, metric), torch.arange(300)
    screen = search.screen(True)
    best = reference.knn(x, None, 10, metric)[1][:, -1]
    lowest, margin = screen.in_bound_units(best, which)
    thresholds = search.thresholds(screen, which)
    assert bool((thresholds.double() <= lowest - margin).all())
    assert bool(thresholds.isfinite().all())


def test_rows_with_too_many_survivors_are_searched_by_lists(passes: list) -> None:
    """80 rows nearer to each other than float16 can tell: more survivors than room."""
    x = torch.randn(300, 12)
    x[100:180] = x[100] + 1e-6 * torch.randn(80, 12)
    same(x, None, 5, "cosine")
    assert passes[0] == ("survived", 300)
    assert passes[1][0] == "screened"
    assert 80 <= passes[1][1] < 120


def test_the_highest_survivors_may_not_be_proof_enough(passes: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """35 near ties: more than the 32 whose scores are looked at first, fewer than there is room for."""
    monkeypatch.setattr(kernels, "ROOM", 6)
    x = torch.randn(400, 12)
    x[100:136] = x[100] + 1e-6 * torch.randn(36, 12)
    same(x, None, 5, "cosine")
    assert passes == [("survived", 400)]


@pytest.mark.parametrize("metric", METRICS)
def test_ties_duplicates_and_zero_rows(metric: str, passes: list) -> None:
    x = torch.cat([torch.randint(-1, 2, (200, 4)).float(), torch.zeros(20, 4)])
    same(x, None, 3, metric)
    same(x, x[-30:].clone(), 3, metric)


def test_sizes_beyond_float32(passes: list) -> None:
    """Rows of every size: with the dot product queries have scales of their own, so that no pair serves both sides."""
    x = torch.randn(300, 6) * torch.logspace(-40, 36, 300)[:, None]
    same(x, None, 5, "dot")


@pytest.mark.parametrize("k", [25, 130])
def test_more_neighbours_than_a_list_keeps(k: int, passes: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 120, in any gallery that is large enough to be sampled."""
    monkeypatch.setattr(kernels, "LARGE", 200 if k == 25 else 1 << 15)
    x = torch.randn(1100 if k == 25 else 3100, 5)
    same(x, x[:40].clone(), k, "euclidean")
    assert passes[0] == ("survived", 40)
    assert passes[1:] == [] or passes[1][1] <= 5


def test_rows_go_in_panels(monkeypatch: pytest.MonkeyPatch, passes: list) -> None:
    monkeypatch.setattr(kernels, "SURVIVORS_AT_ONCE", 48 * 128)
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 50)
    same(torch.randn(300, 4), None, 3, "cosine")
    assert [rows for name, rows in passes if name == "survived"] == [128, 128, 44]
