"""The CUDA kernel of knn's screen: what it appends is what reaches the threshold.

"host" runs it on a CPU, "device" on a GPU of compute capability 9.0.
"""

import ctypes
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import cuda_host
from modalign.kernels.knn import search as kernels
from modalign.kernels.knn.screen import Screen, unpacked
from modalign.reference import knn as reference

POINTERS = [
    "row_scale", "row_slack", "row_norm", "threshold", "col_scale", "col_offset", "col_slack", "col_error", "extremes",
    "excluded", "row_group", "col_group", "keys", "counts",
]  # fmt: skip


class Survivors(ctypes.Structure):
    """Of csrc/cuda/knn/survivors.hpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_int) for name in ("m", "n", "d", "capacity")),
    )


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """modalign._cuda.knn_survivors, by threads; two blocks of them share the tiles."""
    run = cuda_host.compiled("knn_survivors", tmp_path_factory.mktemp("cuda")).knn_survivors

    def knn_survivors(
        queries: int, gallery: int, bfloat16: bool, symmetric: bool, row: list[int], col: list[int], extremes: int,
        excluded: int, groups: list[int], keys: int, counts: int, m: int, n: int, d: int, capacity: int, *_: int,
    ) -> None:  # fmt: skip
        on = Survivors(*row, *col, extremes, excluded, *groups, keys, counts, m, n, d, capacity)
        run(ctypes.c_void_p(queries), ctypes.c_void_p(gallery), bfloat16, symmetric, 2, ctypes.byref(on))

    return knn_survivors


Function = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture(params=["host", "device"])
def survivors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Function]:
    """modalign.ops._cuda.survivors, for tensors where it runs, which are torch's default meanwhile."""
    if request.param == "device":
        on_device = cuda_host.on_device()
        with torch.device("cuda"):
            yield on_device.survivors
        return
    yield cuda_host.on_host(monkeypatch, knn_survivors=request.getfixturevalue("kernel")).survivors


def narrow(x: Tensor, queries: Tensor, metric: str, dtype: torch.dtype, **more: object) -> Screen:
    """The screen as it is on a GPU: the interpreter has bfloat16 rows in float32."""
    screen = Screen(x, queries, metric, dtype == torch.float32, **more)
    if dtype == torch.bfloat16:
        one_table = screen.queries is screen.x
        screen.x = screen.x.bfloat16()
        screen.queries = screen.x if one_table else screen.queries.bfloat16()
    return screen


def bounds(screen: Screen, which: Tensor) -> Tensor:
    """u of every pair, in float64."""
    dots = screen.queries[which].double() @ screen.x.double().T
    scale = screen.row_scale[which, None].double() * screen.col_scale.double()
    slack = screen.row_slack[which, None].double() * screen.col_slack.double()
    error = screen.row_norm[which, None].double() * screen.col_error.double()
    return dots * scale + screen.col_offset.double() + slack + error


def check(keys: Tensor, counts: Tensor, expected: Tensor, allowed: Tensor, thresholds: Tensor) -> None:
    """What is appended once, and its bound: all that reaches the threshold, but for what rounding decides."""
    found, ids = unpacked(keys)
    rounding = 1e-5 * (expected.abs().amax() + thresholds[thresholds.isfinite()].abs().amax()).clamp(min=1.0)
    for row in range(len(keys)):
        of_row = ids[row][ids[row] >= 0]
        assert len(of_row) == counts[row]
        assert len(of_row.unique()) == len(of_row)
        appended = torch.zeros(expected.shape[1], dtype=torch.bool)
        appended[of_row] = True
        reaches = expected[row] - thresholds[row]
        assert not bool((appended & ~allowed[row]).any())
        assert bool(appended[allowed[row] & (reaches > rounding)].all())
        assert not bool(appended[reaches < -rounding].any())
        torch.testing.assert_close(
            found[row][ids[row] >= 0].double(), expected[row][of_row], rtol=0, atol=float(rounding)
        )


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_reaches_the_threshold_is_appended_once(metric: str, dtype: torch.dtype, survivors: Function) -> None:
    """By symmetry, and some rows without it: 700 rows are three squares, the last in part; 70 features, two loads."""
    n, d = 700, 70
    x = (torch.randn(n, d) * torch.logspace(-1, 1, n)[torch.randperm(n), None]).to(dtype)
    groups = torch.arange(n) // 7
    screen = narrow(x, x, metric, dtype, groups=(groups, groups))
    for which in (None, torch.tensor([5, 699, 130, 131])):
        rows = torch.arange(n) if which is None else which
        expected = bounds(screen, rows)
        thresholds = expected.quantile(0.97, dim=1).float()
        thresholds[0] = -torch.inf
        allowed = groups[rows, None] != groups
        keys, counts = survivors(screen, which, rows, thresholds, n)
        check(keys, counts, expected, allowed, thresholds)


def test_queries_find_all_but_what_they_exclude(survivors: Function) -> None:
    x, queries = torch.randn(300, 200).half(), torch.randn(150, 200).half()
    screen, which = narrow(x, queries, "euclidean", torch.float16), torch.arange(150)
    expected, allowed = bounds(screen, which), torch.ones(150, 300, dtype=torch.bool)
    excluded = torch.full((150,), -1)
    excluded[3], allowed[3, 7] = 7, False
    thresholds = torch.where(which % 2 == 0, torch.inf, expected.quantile(0.5, dim=1).float())
    thresholds[3] = -torch.inf
    check(*survivors(screen, which, excluded, thresholds, 300), expected, allowed, thresholds)


def test_too_many_are_counted_and_none_is_written_beyond(survivors: Function) -> None:
    x = torch.randn(260, 16).half()
    thresholds = torch.where(torch.arange(260) % 2 == 0, -torch.inf, torch.inf)
    keys, counts = survivors(narrow(x, x, "dot", torch.float16), None, torch.arange(260), thresholds, 16)
    assert counts.tolist() == [259, 0] * 130
    assert (unpacked(keys)[1] >= 0).sum(1).tolist() == [16, 0] * 130


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_the_neighbours_are_the_definitions(metric: str, survivors: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LARGE", 200)
    monkeypatch.setattr(kernels, "ROOM", 3)
    x, groups = torch.randn(600, 40), torch.arange(600) % 20
    x[100] *= 1e20 if metric == "cosine" else 10  # its scales differ from all others'
    x[200:240] = x[0]
    x[300:320] = 0
    found = kernels.knn(x, None, 5, metric, groups=groups, survivors=survivors)
    expected = reference.knn(x, None, 5, metric, groups=groups)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
