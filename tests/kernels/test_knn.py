"""The exact k-NN's proof: the bound is one, what it proves is right, and what it cannot prove is searched again."""

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
    """What was searched, in order: ("narrow screen 32", rows), .. ("screen 128", rows), ("exhaustive", rows)."""
    seen: list[tuple[str, int]] = []
    screened, exhaustive = kernels._Search.screened, kernels._Search.exhaustive

    def spy_screened(self, which: Tensor, kept: int, narrow: bool):
        seen.append((f"narrow screen {kept}" if narrow else f"screen {kept}", len(which)))
        return screened(self, which, kept, narrow)

    def spy_exhaustive(self, which: Tensor):
        seen.append(("exhaustive", len(which)))
        return exhaustive(self, which)

    monkeypatch.setattr(kernels._Search, "screened", spy_screened)
    monkeypatch.setattr(kernels._Search, "exhaustive", spy_exhaustive)
    return seen


def same(x: Tensor, queries: Tensor | None, k: int, metric: str) -> None:
    indices, scores, report = kernels.knn(x, queries, k, metric)
    assert report[1] + report[2] == len(indices)
    expected = reference.knn(x, queries, k, metric)
    assert torch.equal(indices, expected[0])
    assert torch.equal(scores, expected[1]), "the score is one number, whatever computes it"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_well_spread_rows_are_proved_by_the_first_screen(dtype: torch.dtype, metric: str, passes: list) -> None:
    same(torch.randn(150, 24).to(dtype), None, 10, metric)
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
    screen, which = Screen(x, x, metric, narrow), torch.arange(40)
    bounds, ids = screen.highest(which, torch.full_like(which, -1), 128)
    assert bool((ids[:, :40] >= 0).all() & (ids[:, 40:] == -1).all()), "all 40 rows are kept, no more"
    scores = reference.scores(x, x, metric).gather(1, ids[:, :40])
    for place in range(40):
        lowest, margin = screen.in_bound_units(scores[:, place], which)
        assert bool((lowest - margin <= bounds[:, place].double()).all())


@pytest.mark.parametrize("metric", METRICS)
def test_near_ties_go_through_every_level(metric: str, passes: list) -> None:
    """200 rows closer than float32 can tell: nothing is proved, all of it is searched exhaustively, and exactly."""
    x = torch.randn(1, 8) + 3e-7 * torch.randn(200, 8)
    same(x, x[:3].clone(), 6, metric)
    assert passes == [("narrow screen 32", 3), ("narrow screen 128", 3), ("screen 128", 3), ("exhaustive", 3)]


def test_only_unproved_rows_are_searched_again(passes: list) -> None:
    """One tight cluster of 60 among well-spread rows: more than 32 rows near a tie, fewer than 128."""
    x = torch.randn(160, 12)
    x[40:100] = x[40] + 1e-7 * torch.randn(60, 12)
    same(x, None, 5, "cosine")
    (_, first), (second_name, second) = passes[:2]
    assert (first, second_name) == (160, "narrow screen 128")
    assert 60 <= second < 160, "the cluster, and the rows that have it among their nearest"


def test_a_tie_at_the_edge_of_the_kept_rows_is_not_proved() -> None:
    """The k-th score equals that of discarded rows: only the index decides, and the screen's order is not exact."""
    x = torch.ones(70, 5)
    x[40:] = 1 + 2**-12
    for metric in METRICS:
        same(x, None, 20, metric)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_zero_queries_are_proved_at_once(metric: str, passes: list) -> None:
    """All their scores are 0 and so are their bounds: the answer is the lowest indices."""
    x = torch.randn(90, 6)
    same(x, torch.zeros(4, 6), 7, metric)
    assert passes == [("narrow screen 32", 4)]


@pytest.mark.parametrize("metric", METRICS)
def test_a_duplicated_gallery_is_ordered_by_index(metric: str) -> None:
    x = torch.randn(3, 7).repeat(60, 1)
    same(x, x[:2].clone(), 70, metric)


@pytest.mark.parametrize("k", [119, 120, 121, 200, 249])
def test_k_beyond_what_a_screen_keeps(k: int, passes: list) -> None:
    same(torch.randn(250, 4), torch.randn(3, 4), k, "dot")
    assert passes[0][0] == ("narrow screen 128" if k <= 120 else "exhaustive")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [2, 5, 33, 60])
def test_k_takes_all_the_others(n: int, metric: str, passes: list) -> None:
    same(torch.randn(n, 3), None, n - 1, metric)
    assert len(passes) == 1, "nothing is discarded, so nothing needs a proof"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1e-42, 1e-30, 1e15, 1e37])
def test_sizes_whose_products_leave_float32(size: float, metric: str, passes: list) -> None:
    x = torch.randn(140, 6).clamp(-3, 3) * size
    x[17] = 0
    same(x, None, 4, metric)
    assert passes[0] == ("narrow screen 32", 140)
    assert sum(rows for _, rows in passes[1:]) <= 14, "scaled by a power of two, most rows are proved"


@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_every_size_at_once(metric: str) -> None:
    same(torch.randn(80, 6) * torch.logspace(-40, 36, 80)[:, None], None, 5, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_subnormal_bfloat16(metric: str) -> None:
    """The scores of rows below 1e-38 are exact too."""
    same((1e-38 * torch.randn(50, 3)).bfloat16(), None, 6, metric)


def test_splits_of_the_gallery_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(300, 5)
    queries = torch.randn(4, 5)
    for programs in (1, 2, 256):
        monkeypatch.setattr("modalign.kernels.knn.screen.PROGRAMS", programs)
        same(x, queries, 9, "euclidean")


def test_rows_are_searched_in_blocks(monkeypatch: pytest.MonkeyPatch, passes: list) -> None:
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 16)
    monkeypatch.setattr(kernels, "SCORES_AT_ONCE", 200)
    same(torch.randn(40, 4), None, 3, "cosine")
    assert [rows for _, rows in passes] == [16, 16, 8]
    same(torch.ones(40, 4), torch.ones(12, 4), 36, "cosine")
    assert [rows for name, rows in passes if name == "exhaustive"] == []
    same(torch.randn(140, 4), torch.randn(3, 4), 130, "cosine")
    assert [rows for name, rows in passes if name == "exhaustive"] == [1, 1, 1]


def test_powers_of_two_are_exact() -> None:
    exponents = torch.arange(-1022, 1024)
    assert power_of_two(exponents).tolist() == [2.0**e for e in range(-1022, 1024)]
