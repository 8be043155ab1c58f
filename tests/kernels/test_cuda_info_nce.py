"""The CUDA kernels of info_nce's tiles compute the sums and weights of the definition.

The parameter "host" runs them on a CPU, "device" on a GPU of compute capability 9.0.
"""

import ctypes
import types
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import cuda_host
import modalign
from flat_losses import FlatLosses
from modalign.kernels.losses import info_nce as kernels
from modalign.kernels.losses import products
from modalign.reference import info_nce as definition

reference = FlatLosses(definition)
SUM_ERROR = 2e-6  # relative to 1 + the largest logit: a few roundings of float32
PRODUCT_ERROR = 2**-8  # relative to |W| |v|: weights are rounded to bfloat16
# rows, columns, features: three and two tiles with incomplete last ones, an incomplete stage of features, small sizes
SIZES = [(300, 300, 72), (140, 520, 200), (520, 70, 130), (64, 256, 64), (1, 1, 8), (3, 1, 16)]


class Part(ctypes.Structure):
    """A struct of csrc/cuda/losses/info_nce_tables.hpp, like the next two."""

    _fields_ = tuple((name, ctypes.c_int) for name in ("row", "rows", "col", "cols"))


class Sums(ctypes.Structure):
    """The tables of the sums."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("scale", "row_parts", "col_parts", "positive")),
        ("row_stride", ctypes.c_int64),
        ("part", Part),
        *((name, ctypes.c_int) for name in ("n", "m", "d")),
        ("pairs_left_out", ctypes.c_bool),
    )


class Weights(ctypes.Structure):
    """The tables of the weights."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("scale", "row_lse", "row_grad", "col_lse", "col_grad", "positive_grad")),
        ("part", Part),
        *((name, ctypes.c_int) for name in ("n", "m", "d")),
        ("pairs_left_out", ctypes.c_bool),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return cuda_host.compiled("info_nce", tmp_path_factory.mktemp("cuda"))


def functions(library: ctypes.CDLL, blocks: int) -> dict[str, Callable[..., None]]:
    """Return replacements of functions of modalign._cuda that share the tiles among this many blocks."""

    def info_nce_sums(
        x: int,
        y: int,
        scale: int,
        row_parts: int,
        row_stride: int,
        col_parts: int,
        positive: int,
        pairs_left_out: bool,
        part: tuple[int, ...],
        n: int,
        m: int,
        d: int,
        *_: int,
    ) -> None:
        tables = Sums(scale, row_parts, col_parts, positive, row_stride, Part(*part), n, m, d, pairs_left_out)
        library.info_nce_sums(ctypes.c_void_p(x), ctypes.c_void_p(y), blocks, ctypes.byref(tables))

    def info_nce_weights(
        x: int,
        y: int,
        scale: int,
        row: list[int],
        col: list[int],
        positive_grad: int,
        pairs_left_out: bool,
        weights: int,
        stride: int,
        part: tuple[int, ...],
        n: int,
        m: int,
        d: int,
        *_: int,
    ) -> None:
        tables = Weights(scale, *row, *col, positive_grad, Part(*part), n, m, d, pairs_left_out)
        library.info_nce_weights(
            ctypes.c_void_p(x),
            ctypes.c_void_p(y),
            ctypes.c_void_p(weights),
            ctypes.c_int64(stride),
            blocks,
            ctypes.byref(tables),
        )

    return {"info_nce_sums": info_nce_sums, "info_nce_weights": info_nce_weights}


@pytest.fixture(params=["host", "device"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Yield modalign.ops._cuda; new tensors are on the device where it runs."""
    if request.param == "device":
        on_device = cuda_host.on_device()
        with torch.device("cuda"):
            yield on_device
        return
    yield cuda_host.on_host(monkeypatch, **functions(request.getfixturevalue("library"), 2))


def tables(n: int, m: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, y and scale with logits of a few units."""
    x, y = torch.randn(1, n, d).bfloat16(), torch.randn(1, m, d).bfloat16()
    return x, y, (0.5 + torch.rand(1, n)) * 4 / d**0.5


def far_apart(n: int, m: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return tables with norms over three orders of magnitude and logits up to 400.

    No shift of the exponentials can serve both a row and a column.
    """
    x, y, scale = tables(n, m, d)
    x, y = (
        (table * torch.logspace(-1.5, 1.5, size)[torch.randperm(size), None]).bfloat16()
        for table, size in ((x, n), (y, m))
    )
    scale *= 400 / largest_logit(x, y, scale)
    largest = (x.double() @ y.double().mT * scale.double()[:, :, None])[0].amax(0)
    assert float(largest.max() - largest.min()) > 300  # among the largest logits of columns
    return x, y, scale


def largest_logit(x: Tensor, y: Tensor, scale: Tensor) -> float:
    return float((x.double() @ y.double().mT * scale.double()[:, :, None]).abs().max())


def check_sums(
    cuda: types.ModuleType, x: Tensor, y: Tensor, scale: Tensor, mask: str = "none", columns: bool = True
) -> tuple[Tensor, ...]:
    results = FlatLosses(cuda).info_nce_forward(x, y, scale, None, None, None, None, mask, columns, False, 0)
    expected = reference.info_nce_forward(x.double(), y.double(), scale.double(), mask=mask, columns=columns)
    largest = 1 + largest_logit(x, y, scale)
    for actual, wanted in zip(results[:3], expected[:3], strict=True):
        torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=SUM_ERROR * largest)
    assert all(table.numel() == 0 for table in results[3:])
    return results


def check_products(
    cuda: types.ModuleType,
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    mask: str = "none",
    *,
    rows: bool = True,
    cols: bool = True,
    positives: bool = True,
    needed: tuple[bool, bool] = (True, True),
) -> tuple[Tensor, Tensor]:
    """Check the products with the tables v and u that are ``needed``, for the gradients that there are."""
    (_, n, d), m = x.shape, y.shape[1]
    sums = reference.info_nce_forward(x.double(), y.double(), scale.double(), mask=mask, columns=cols)
    sizes = (n if rows else 0, m if cols else 0, n if positives and n == m else 0)
    grads = [torch.randn(1, size) for size in sizes]
    v, u = (torch.randn(1, size, d).bfloat16() if need else None for size, need in zip((m, n), needed, strict=True))
    entries = (None, None, None, None, mask)
    results = FlatLosses(cuda).info_nce_backward(
        *grads, x, y, v, u, scale, *entries, sums[0].float(), sums[1].float(), torch.empty(0, m)
    )

    def exact(*tables: Tensor | None) -> tuple[Tensor, ...]:
        double = [None if table is None else table.double() for table in tables]
        double[3:5], double[7] = (x.double(), y.double()), scale.double()
        return reference.info_nce_backward(*double, *entries, *sums[:2], sums[3])

    expected = exact(*grads, x, y, v, u, scale)
    sizes = exact(*(None if table is None else table.abs() for table in (*grads, x, y, v, u, scale)))
    for actual, wanted, size in zip(results, expected, sizes, strict=True):
        assert actual.shape == wanted.shape
        error = ((actual.double() - wanted).abs() / size.clamp_min(1e-30)).max() if actual.numel() else 0.0
        # exp turns an absolute error of a logit into a relative error of its weight
        assert error <= PRODUCT_ERROR + SUM_ERROR * largest_logit(x, y, scale)
    return results


MASKS = ["none", "diagonal"]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.usefixtures("nan_filled_memory")
def test_sums_agree_with_the_definition(size: tuple[int, int, int], mask: str, cuda: types.ModuleType) -> None:
    check_sums(cuda, *tables(*size), mask)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.usefixtures("nan_filled_memory")
def test_products_agree_with_the_definition(size: tuple[int, int, int], mask: str, cuda: types.ModuleType) -> None:
    check_products(cuda, *tables(*size), mask)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.usefixtures("nan_filled_memory")
def test_norms_over_orders_of_magnitude(mask: str, cuda: types.ModuleType) -> None:
    x, y, scale = far_apart(300, 300, 72)
    check_sums(cuda, x, y, scale, mask)
    check_products(cuda, x, y, scale, mask)


def test_positives_with_very_large_logits(cuda: types.ModuleType) -> None:
    """Exclude positives whose exponentials would overflow."""
    x = torch.nn.functional.normalize(torch.randn(1, 200, 512), dim=2).bfloat16()
    y, scale = x.clone(), torch.full((1, 200), 150.0)
    assert float((x @ x.mT * 150)[0].fill_diagonal_(0).max()) < 150 - 90
    check_sums(cuda, x, y, scale, "diagonal")
    check_products(cuda, x, y, scale, "diagonal")


def test_one_direction_and_one_tower(cuda: types.ModuleType) -> None:
    x, y, scale = tables(200, 150, 40)
    check_sums(cuda, x, y, scale, columns=False)
    check_products(cuda, x, y, scale, cols=False, needed=(True, False))
    check_products(cuda, x, y, scale, rows=False, needed=(False, True))
    check_products(cuda, *tables(150, 150, 40), rows=False, cols=False)


@pytest.mark.usefixtures("nan_filled_memory")
def test_bands_and_blocks(cuda: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the rows into bands of two tiles and of one, and the weights into bands that end inside tiles."""
    x, y, scale = tables(450, 450, 24)
    monkeypatch.setattr(kernels, "BAND_BYTES", 4 * 8 * (450 + 2 * 64))
    check_sums(cuda, x, y, scale)
    monkeypatch.setattr(kernels, "BAND_BYTES", 6 * 8 * (450 + 2 * 64))
    monkeypatch.setattr(products, "BAND_ROWS", 200)
    monkeypatch.setattr(products, "BAND_BYTES", 200 * 384 * 2)
    assert len(list(products.blocks(1, 450, 450, 2))) == 6
    for mask in MASKS:
        check_sums(cuda, x, y, scale, mask)
        check_products(cuda, x, y, scale, mask)


def test_a_pair_alone_has_a_loss_of_exactly_0(cuda: types.ModuleType) -> None:
    for scale in (0.3, 7.0, 1e4):
        x, y = torch.randn(2, 1, 1, 48).bfloat16()
        row_lse, col_lse, positive = check_sums(cuda, x, y, torch.full((1, 1), scale))[:3]
        assert row_lse.item() == col_lse.item() == positive.item()


def test_bits_do_not_depend_on_the_blocks_that_compute_the_tiles(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, scale = tables(300, 520, 40)
    runs = []
    for blocks in (1, 3, 3):
        cuda = cuda_host.on_host(monkeypatch, **functions(library, blocks))
        torch.manual_seed(1)
        runs.append((*check_sums(cuda, x, y, scale)[:2], *check_products(cuda, x, y, scale)))
    for first, *others in zip(*runs, strict=True):
        assert all(torch.equal(first, other) for other in others)


def test_the_loss_and_its_gradients_on_the_device() -> None:
    cuda_host.on_device()
    x, y = torch.randn(2, 1000, 512, device="cuda").bfloat16()
    losses = []
    for backend, dtype in (("cuda", torch.bfloat16), ("reference", torch.float64)):
        leaves = [table.to(dtype).requires_grad_() for table in (x, y)]
        loss = modalign.info_nce(*leaves, temperature=0.07, backend=backend)
        losses.append((loss, *torch.autograd.grad(loss, leaves)))
    (loss, *grads), (wanted, *wanted_grads) = losses
    assert abs(float(loss) - float(wanted)) < 1e-2  # rows of unit length are rounded to bfloat16
    for grad, other in zip(grads, wanted_grads, strict=True):
        assert float((grad.double() - other).norm() / other.norm()) < 2e-2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": torch.ones(4, 8), "y": torch.ones(4, 8)}, "dtype torch.float32"),
        ({"groups": torch.arange(4)}, "takes no ids, .*; this call has ids"),
        ({"workspace": 1 << 20}, "takes no .*; this call has stored logits"),
        ({"x": torch.ones(2, 4, 8).bfloat16(), "y": torch.ones(2, 4, 8).bfloat16()}, "a batch of 2 problems"),
        ({}, "device cpu"),
    ],
    ids=str,
)
def test_a_refusal_names_its_reason(change: dict[str, object], reason: str) -> None:
    call = {"x": torch.ones(4, 8).bfloat16(), "y": torch.ones(4, 8).bfloat16(), "backend": "cuda", **change}
    call["x"].requires_grad_()  # without gradients no logits would be stored
    with pytest.raises(NotImplementedError, match=f"cuda: {reason}"):
        modalign.info_nce(**call)
