"""The CUDA kernel of knn's screen appends exactly the rows whose bounds reach the threshold.

The parameter "host" runs it on a CPU, "device" on a GPU of compute capability 9.0.
"""

import ctypes
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import cuda_host
from modalign.kernels.knn import search as kernels
from modalign.kernels.knn.screen import Screen, unpack_keys
from modalign.reference import knn as reference

METRICS = ("cosine", "dot", "euclidean")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
POINTERS = [
    "row_scale",
    "row_slack",
    "row_norm",
    "threshold",
    "col_scale",
    "col_offset",
    "col_slack",
    "col_error",
    "extremes",
    "excluded",
    "row_group",
    "col_group",
    "keys",
    "counts",
]


class Survivors(ctypes.Structure):
    """The struct of csrc/cuda/knn/survivors.hpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_int) for name in ("m", "n", "d", "capacity")),
    )


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Return a replacement of modalign._cuda.knn_survivors that runs on threads; two blocks share the tiles."""
    run = cuda_host.compiled("knn_survivors", tmp_path_factory.mktemp("cuda")).knn_survivors

    def knn_survivors(
        queries: int,
        gallery: int,
        bfloat16: bool,
        symmetric: bool,
        row: list[int],
        col: list[int],
        extremes: int,
        excluded: int,
        groups: list[int],
        keys: int,
        counts: int,
        m: int,
        n: int,
        d: int,
        capacity: int,
        *_: int,
    ) -> None:
        tables = Survivors(*row, *col, extremes, excluded, *groups, keys, counts, m, n, d, capacity)
        run(ctypes.c_void_p(queries), ctypes.c_void_p(gallery), bfloat16, symmetric, 2, ctypes.byref(tables))

    return knn_survivors


Groups = tuple[Tensor, Tensor] | tuple[None, None]
Function = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture(params=["host", "device"])
def survivors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Function]:
    """Yield modalign.ops._cuda.survivors; new tensors are on the device where it runs."""
    if request.param == "device":
        on_device = cuda_host.on_device()
        with torch.device("cuda"):
            yield on_device.survivors
        return
    yield cuda_host.on_host(monkeypatch, knn_survivors=request.getfixturevalue("kernel")).survivors


def narrow(x: Tensor, queries: Tensor, metric: str, dtype: torch.dtype, groups: Groups = (None, None)) -> Screen:
    """Return the screen as it is on a GPU; the interpreter would hold bfloat16 rows in float32."""
    screen = Screen(x, queries, metric, narrow=dtype == torch.float32, groups=groups)
    if dtype == torch.bfloat16:
        one_table = screen.queries is screen.x
        screen.x = screen.x.bfloat16()
        screen.queries = screen.x if one_table else screen.queries.bfloat16()
    return screen


def bounds(screen: Screen, rows: Tensor) -> Tensor:
    """Return the bound u of every pair in float64."""
    dots = screen.queries[rows].double() @ screen.x.double().T
    scale = screen.row_scale[rows, None].double() * screen.col_scale.double()
    slack = screen.row_slack[rows, None].double() * screen.col_slack.double()
    error = screen.row_norm[rows, None].double() * screen.col_error.double()
    return dots * scale + screen.col_offset.double() + slack + error


def check(keys: Tensor, counts: Tensor, expected: Tensor, allowed: Tensor, thresholds: Tensor) -> None:
    """Check that every row whose bound reaches the threshold is appended once, with its bound, up to rounding."""
    values, ids = unpack_keys(keys)
    rounding = 1e-5 * (expected.abs().amax() + thresholds[thresholds.isfinite()].abs().amax()).clamp(min=1.0)
    for row in range(len(keys)):
        row_ids = ids[row][ids[row] >= 0]
        assert len(row_ids) == counts[row]
        assert len(row_ids.unique()) == len(row_ids)
        appended = torch.zeros(expected.shape[1], dtype=torch.bool)
        appended[row_ids] = True
        reaches = expected[row] - thresholds[row]
        assert not bool((appended & ~allowed[row]).any())
        assert bool(appended[allowed[row] & (reaches > rounding)].all())
        assert not bool(appended[reaches < -rounding].any())
        torch.testing.assert_close(
            values[row][ids[row] >= 0].double(), expected[row][row_ids], rtol=0, atol=float(rounding)
        )


@pytest.mark.parametrize(
    ("n", "dtype", "metric"),
    [(530, torch.float16, "cosine"), *itertools.product([270], DTYPES, METRICS)],
)
def test_rows_that_reach_the_threshold_are_appended_once(
    n: int, dtype: torch.dtype, metric: str, survivors: Function
) -> None:
    """Append by symmetry, and for a few rows without it.

    The rows are two or three squares, the last incomplete; 70 features take two loads.
    """
    d = 70
    x = (torch.randn(n, d) * torch.logspace(-1, 1, n)[torch.randperm(n), None]).to(dtype)
    groups = torch.arange(n) // 7
    screen = narrow(x, x, metric, dtype, groups=(groups, groups))
    for selected in (None, torch.tensor([5, n - 1, 130, 131])):
        rows = torch.arange(n) if selected is None else selected
        expected = bounds(screen, rows)
        thresholds = expected.quantile(0.97, dim=1).float()
        thresholds[0] = -torch.inf
        allowed = groups[rows, None] != groups
        keys, counts = survivors(screen, selected, rows, thresholds, capacity=n)
        check(keys, counts, expected, allowed, thresholds)


def test_queries_get_all_rows_but_the_excluded_one(survivors: Function) -> None:
    x, queries = torch.randn(300, 200).half(), torch.randn(150, 200).half()
    screen, rows = narrow(x, queries, "euclidean", torch.float16), torch.arange(150)
    expected, allowed = bounds(screen, rows), torch.ones(150, 300, dtype=torch.bool)
    excluded = torch.full((150,), -1)
    excluded[3], allowed[3, 7] = 7, False
    thresholds = torch.where(rows % 2 == 0, torch.inf, expected.quantile(0.5, dim=1).float())
    thresholds[3] = -torch.inf
    check(*survivors(screen, rows, excluded, thresholds, 300), expected, allowed, thresholds)


def test_survivors_beyond_the_capacity_are_counted_but_not_written(survivors: Function) -> None:
    x = torch.randn(260, 16).half()
    thresholds = torch.where(torch.arange(260) % 2 == 0, -torch.inf, torch.inf)
    keys, counts = survivors(narrow(x, x, "dot", torch.float16), None, torch.arange(260), thresholds, 16)
    assert counts.tolist() == [259, 0] * 130
    assert (unpack_keys(keys)[1] >= 0).sum(1).tolist() == [16, 0] * 130


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_agree_with_the_definition(
    metric: str, survivors: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "LARGE", 200)
    monkeypatch.setattr(kernels, "ROOM", 3)
    x, groups = torch.randn(330, 40), torch.arange(330) % 20
    x[100] *= 1e20 if metric == "cosine" else 10  # its scale differs from that of all other rows
    x[200:240] = x[0]
    x[300:320] = 0
    neighbors = kernels.knn(x, None, 5, metric, groups=groups, survivors=survivors)
    expected = reference.knn(x, None, 5, metric, groups=groups)
    assert torch.equal(neighbors[0], expected[0])
    assert torch.equal(neighbors[1], expected[1])
