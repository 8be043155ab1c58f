"""Properties of the info_nce kernels beyond the contract tests: schedules, ranges, tile edges, determinism."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from flat_losses import FlatLosses
from modalign.kernels.losses import info_nce as module
from modalign.kernels.losses import products
from modalign.kernels.shared.tiles import Tile
from modalign.reference import info_nce as definition

reference = FlatLosses(definition)
info_nce_forward, info_nce_backward = FlatLosses(module).info_nce_forward, FlatLosses(module).info_nce_backward
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
# relative to the largest entry: float32 sums of at most 100 terms, and one rounding of the weights
PRODUCT_ERROR = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
# relative to 1 + the largest logit: a few roundings of float32
SUM_ERROR = 2e-6
SIZES = [(1, 1, 5, 3), (37, 53, 19, 19), (64, 64, 17, 40), (5, 70, 8, 8)]
# mask, with ids, with caps
LEFT_OUT = [
    ("none", False, False),
    ("diagonal", False, False),
    ("diagonal", False, True),
    ("none", True, False),
    ("diagonal", True, True),
    ("same", True, True),
    ("different", True, False),
]


@pytest.fixture
def products_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the interpreter's products independent of the size of a tile, as they are on a device.

    The interpreter multiplies with NumPy, whose last bit depends on the size where OpenBLAS has only a kernel for AVX2;
    summed in float64 it does not.
    """
    from triton.runtime import interpreter

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        product = a.data.astype(np.float64) @ b.data.astype(np.float64) + d.data
        return interpreter.TensorHandle(product.astype(d.data.dtype), d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


def narrow_tile(kernel: str, *_: object, variant: str = "full") -> Tile:
    if kernel == "info_nce_combine":
        return Tile({"BLOCK_N": 32, "PARTS": 4}, 1, 1)
    blocks = {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_D": 16}
    return Tile({**blocks, "DESCRIPTORS": 0} if kernel == "info_nce_forward" else blocks, 1, 1)


@dataclasses.dataclass
class Problem:
    """The tables of a call, of one stream if y is None."""

    x: Tensor
    y: Tensor | None
    v: Tensor
    u: Tensor | None
    scale: Tensor
    entries: tuple[Tensor | None, ...]  # ids and caps
    grads: tuple[Tensor, Tensor, Tensor]

    def backward(self, mask: str, forward: tuple[Tensor, ...], function=info_nce_backward, **schedule) -> list[Tensor]:
        tables = (*self.grads, self.x, self.y, self.v, self.u, self.scale, *self.entries, mask)
        return function(*tables, forward[0], forward[1], forward[3], **schedule)


def problem(
    n: int,
    m: int,
    d: int,
    e: int,
    dtype: torch.dtype = torch.float32,
    *,
    b: int = 2,
    ids: bool = False,
    caps: bool = False,
    one_stream: bool = False,
) -> Problem:
    x, y, v, u = (torch.randn(b, rows, width).to(dtype) / 2 for rows, width in ((n, d), (m, d), (m, e), (n, e)))
    scale = 0.5 + 3 * torch.rand(b, n)
    row_id, col_id = (torch.randint(-1, 4, (b, size)) for size in (n, m)) if ids else (None, None)
    row_cap, col_cap = (2 * torch.randn(b, size) for size in (n, m)) if caps else (None, None)
    if row_cap is not None:
        row_cap[:, 0] = torch.inf
        row_cap[:, -1] = -1e9  # no entry of the row counts
    grads = [torch.randn(b, size) for size in (n, m, n if m == n else 0)]
    if one_stream:
        grads = [grads[0], grads[1][:, :0], grads[2][:, :0]]
        scale = scale[:, :1].expand(b, n).contiguous()
        return Problem(x, None, v, None, scale, (row_id, row_id, row_cap, row_cap), tuple(grads))
    return Problem(x, y, v, u, scale, (row_id, col_id, row_cap, col_cap), tuple(grads))


def assert_near(actual: Tensor, wanted: Tensor, error: float, name: str) -> None:
    """Assert equality where values are infinite, and elsewhere errors of at most ``error`` times the largest entry."""
    assert actual.shape == wanted.shape, name
    assert actual.dtype == torch.float32, name
    finite = wanted.isfinite()
    assert torch.equal(actual[~finite], wanted[~finite]), name
    if bool(finite.any()):
        largest_error = float((actual - wanted)[finite].abs().max())
        assert largest_error <= error * float(wanted[finite].abs().max()) + 1e-6 * error, (
            f"{name}: error {largest_error}"
        )


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit blocks to 32 rows and 128 columns, so that small problems have several."""
    monkeypatch.setattr(products, "BAND_BYTES", 4096)
    monkeypatch.setattr(products, "BAND_ROWS", 32)
    monkeypatch.setattr(products, "ALIGNMENT", 32)


@pytest.mark.parametrize(("mask", "ids", "caps"), LEFT_OUT)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sums_agree_with_the_reference(size: tuple[int, int, int, int], mask: str, ids: bool, caps: bool) -> None:
    one = problem(*size, ids=ids, caps=caps)
    call = (one.x, one.y, one.scale, *one.entries, mask, True, True, 4 * size[1] * size[0])
    largest = 1 + float(reference.info_nce_forward(*call[:3], workspace=1 << 20)[3].abs().max())
    names = ("row_lse", "col_lse", "positive", "stored", "row_best", "row_mean", "col_best", "col_mean")
    for name, actual, wanted in zip(names, info_nce_forward(*call), reference.info_nce_forward(*call), strict=True):
        finite = wanted.isfinite()
        assert torch.equal(actual[~finite], wanted[~finite]), name
        torch.testing.assert_close(actual, wanted, rtol=0, atol=SUM_ERROR * largest, msg=lambda text, n=name: n + text)


@pytest.mark.parametrize("one_stream", [False, True])
@pytest.mark.parametrize(("mask", "ids", "caps"), LEFT_OUT)
def test_sums_of_bands_and_splits_agree_with_the_reference(
    mask: str, ids: bool, caps: bool, one_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use tiles of 16 x 32: bands of at most two blocks of rows, and two parts of the columns, the last incomplete."""
    monkeypatch.setattr(module, "tile", narrow_tile)
    n = 43
    m = n if one_stream else 230
    one = problem(n, m, 9, 9, ids=ids, caps=caps, one_stream=one_stream)
    monkeypatch.setattr(module, "BAND_BYTES", 3 * 4 * 3 * 2 * m)
    monkeypatch.setattr(module, "PROGRAMS", 8)
    call = (one.x, one.y, one.scale, *one.entries, mask, True, True, 4 * m * 50)
    y = one.x if one.y is None else one.y
    largest = 1 + float(one.scale.amax() * one.x.norm(dim=2).amax() * y.norm(dim=2).amax())
    for actual, wanted in zip(info_nce_forward(*call), reference.info_nce_forward(*call), strict=True):
        finite = wanted.isfinite()
        assert torch.equal(actual[~finite], wanted[~finite])
        torch.testing.assert_close(actual, wanted, rtol=0, atol=SUM_ERROR * largest)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_results_that_are_not_requested_have_width_zero(dtype: torch.dtype) -> None:
    one = problem(6, 9, 5, 5, dtype)
    for columns, stats, workspace in ((False, False, 0), (False, True, 4 * 9 * 2), (True, False, 1 << 20)):
        call = (one.x, one.y, one.scale, *one.entries, "none", columns, stats, workspace)
        results, wanted = info_nce_forward(*call), reference.info_nce_forward(*call)
        assert [result.shape for result in results] == [result.shape for result in wanted]
    alone = (one.x, None, one.scale[:, :1].expand(2, 6), *one.entries, "diagonal", True, True, 1 << 20)
    results, wanted = info_nce_forward(*alone), reference.info_nce_forward(*alone)
    assert [result.shape for result in results] == [result.shape for result in wanted]


@pytest.mark.parametrize(("mask", "ids", "caps"), LEFT_OUT)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.usefixtures("small_blocks", "products_rounded_once")
def test_products_of_every_schedule_agree_with_the_reference(
    size: tuple[int, int, int, int], mask: str, ids: bool, caps: bool
) -> None:
    one = problem(*size, b=1, ids=ids, caps=caps)
    forward = info_nce_forward(one.x, one.y, one.scale, *one.entries, mask, workspace=4 * size[1] * (size[0] + 1))
    wanted = one.backward(mask, forward, reference.info_nce_backward)
    results = {name: one.backward(mask, forward, schedule=name) for name in products.SCHEDULES}
    for name, pair in results.items():
        for side, actual, expected in zip(("W v", "W' u"), pair, wanted, strict=True):
            assert_near(actual, expected, PRODUCT_ERROR[torch.float32], f"{name} {side}")
    assert all(map(torch.equal, results["banded"], results["stored"]))


@pytest.mark.parametrize("dtype", FLOATS[1:], ids=str)
@pytest.mark.parametrize("one_stream", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_every_schedule_rounds_half_precision_weights_once(dtype: torch.dtype, one_stream: bool) -> None:
    one = problem(37, 37, 19, 40, dtype, ids=True, caps=True, one_stream=one_stream)
    forward = info_nce_forward(one.x, one.y, one.scale, *one.entries, "same", workspace=4 * 37 * 40)
    wanted = one.backward("same", forward, reference.info_nce_backward)
    for name in ("fused", "banded") if one_stream else products.SCHEDULES:
        for actual, expected in zip(one.backward("same", forward, schedule=name), wanted, strict=True):
            assert_near(actual, expected, PRODUCT_ERROR[dtype], name)


@pytest.mark.parametrize("one_stream", [False, True])
@pytest.mark.parametrize("name", ["fused", "banded"])
def test_a_table_that_is_none_is_not_multiplied(name: str, one_stream: bool) -> None:
    one = problem(33, 33, 9, 4, one_stream=one_stream)
    forward = info_nce_forward(one.x, one.y, one.scale, mask="diagonal")
    both = one.backward("diagonal", forward, schedule=name)
    without_v = dataclasses.replace(one, v=None).backward("diagonal", forward, schedule=name)
    without_u = dataclasses.replace(one, u=None).backward("diagonal", forward, schedule=name)
    assert torch.equal(without_u[0], both[0])
    assert torch.equal(without_v[1], both[1])
    assert without_v[0].shape == without_u[1].shape == (2, 0, 9)


@pytest.mark.parametrize("name", ["fused", "banded"])
def test_gradients_of_width_zero_are_zero(name: str) -> None:
    one = problem(20, 20, 6, 6)
    forward = info_nce_forward(one.x, one.y, one.scale)
    for kept in range(3):
        grads = tuple(grad if side == kept else grad[:, :0] for side, grad in enumerate(one.grads))
        partial = dataclasses.replace(one, grads=grads)
        wanted = partial.backward("none", forward, reference.info_nce_backward)
        for actual, expected in zip(partial.backward("none", forward, schedule=name), wanted, strict=True):
            assert_near(actual, expected, PRODUCT_ERROR[torch.float32], name)


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 45, 90, 1000])
@pytest.mark.usefixtures("small_blocks", "products_rounded_once")
def test_stored_logits_change_no_bits(rows: int) -> None:
    """The memory may hold any part of the logits and end in any problem."""
    one = problem(45, 50, 12, 12)
    calls = [
        info_nce_forward(one.x, one.y, one.scale, *one.entries, "diagonal", workspace=space)
        for space in (0, 4 * 50 * rows)
    ]
    assert calls[1][3].shape == (min(rows, 90), 50)
    for index in (0, 1, 2):
        assert torch.equal(calls[0][index], calls[1][index])
    first, second = (one.backward("diagonal", forward, schedule=None) for forward in calls)
    assert all(map(torch.equal, first, second))
    if rows:
        banded, stored = (one.backward("diagonal", calls[1], schedule=name) for name in ("banded", "stored"))
        assert all(map(torch.equal, banded, stored))


def test_a_schedule_that_cannot_run_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    one = problem(4, 4, 3, 3)
    forward = info_nce_forward(one.x, one.y, one.scale)
    with pytest.raises(ValueError, match=r"schedule must be one of .*'stored'.*, got 'fastest'"):
        one.backward("none", forward, schedule="fastest")
    with pytest.raises(ValueError, match="'stored' needs logits that the forward pass stored, got none"):
        one.backward("none", forward, schedule="stored")
    monkeypatch.setattr(products, "_banded_refusal", lambda _: "float32 products are rounded to tf32")
    with pytest.raises(NotImplementedError, match="schedule 'banded' cannot run: float32 products are rounded to tf32"):
        one.backward("none", forward, schedule="banded")


def pairs(n: int, d: int, dtype: torch.dtype, b: int = 1) -> tuple[Tensor, Tensor]:
    return tuple(torch.nn.functional.normalize(torch.randn(b, n, d), dim=-1).to(dtype) for _ in range(2))


def loss_gradients(n: int, b: int = 1) -> list[Tensor]:
    """Return the gradients of the mean of the symmetric loss with respect to the sums."""
    return [torch.full((b, n), 0.5 / n), torch.full((b, n), 0.5 / n), torch.full((b, n), -1.0 / n)]


def gradients(
    grads: list[Tensor],
    x: Tensor,
    y: Tensor,
    scale: Tensor,
    forward: tuple[Tensor, ...],
    function=info_nce_backward,
    **schedule,
) -> tuple[Tensor, Tensor]:
    """Return dx and dy."""
    return function(*grads, x, y, y, x, scale, *4 * [None], "none", *forward[:2], forward[3], **schedule)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["fused", "banded"])
def test_two_calls_give_the_same_bits(name: str, dtype: torch.dtype) -> None:
    x, y = pairs(71, 20, dtype, b=2)
    scale = torch.tensor([[5.0], [20.0]]).expand(2, 71)
    first, second = (info_nce_forward(x, y, scale, stats=True) for _ in range(2))
    assert all(map(torch.equal, first, second))
    once, twice = (gradients(loss_gradients(71, 2), x, y, scale, first, schedule=name) for _ in range(2))
    assert all(map(torch.equal, once, twice))


@pytest.mark.parametrize("n", [31, 32, 33, 64, 65])
def test_exchanging_the_modalities_exchanges_the_results(n: int) -> None:
    """Exchange x and y, with sizes around the edges of a tile.

    A row is summed tile after tile, a column from parts: the logits are the same, the order of their sums is not.
    """
    x, y = pairs(n, 9, torch.float32)
    scale = torch.full((1, n), 7.0)
    row_lse, col_lse, positive, *_ = info_nce_forward(x, y, scale)
    swapped = info_nce_forward(y, x, scale)
    torch.testing.assert_close(row_lse, swapped[1], rtol=0, atol=8 * SUM_ERROR)
    torch.testing.assert_close(col_lse, swapped[0], rtol=0, atol=8 * SUM_ERROR)
    assert torch.equal(positive, swapped[2])
    assert bool((row_lse >= positive).all() & (col_lse >= positive).all())


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_one_pair_has_loss_zero_and_no_gradient(dtype: torch.dtype, scale: float) -> None:
    x, y = pairs(1, 37, dtype)
    scales = torch.tensor([[scale]])
    forward = info_nce_forward(x, y, scales)
    row_lse, col_lse, positive = forward[:3]
    assert torch.equal((row_lse + col_lse) / 2 - positive, torch.zeros(1, 1))
    # without its positive no entry counts
    assert torch.equal(info_nce_forward(x, y, scales, mask="diagonal")[0], torch.tensor([[-torch.inf]]))
    for name in ("fused", "banded"):
        for grad in gradients(loss_gradients(1), x, y, scales, forward, schedule=name):
            assert float(grad.abs().max()) == 0


@pytest.mark.parametrize("size", [1e-4, 6e4])
def test_float16_at_the_ends_of_its_range(size: float) -> None:
    """Logits of -4e9 .. 4e9 have one-hot softmaxes, tiny inputs uniform ones; neither may overflow or underflow."""
    x, y = (torch.where(torch.rand(1, 9, 3) < 0.5, -size, size).half() for _ in range(2))
    scale = torch.ones(1, 9)
    results = info_nce_forward(x, y, scale)
    expected = reference.info_nce_forward(x.double(), y.double(), scale)
    for actual, wanted in zip(results[:3], expected[:3], strict=True):
        torch.testing.assert_close(actual.double(), wanted, rtol=3e-7, atol=3e-7)
    for name in ("fused", "banded"):
        grads = gradients(loss_gradients(9), x, y, scale, results, schedule=name)
        assert all(bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("name", ["fused", "banded"])
@pytest.mark.parametrize("size", [1e-25, 1e-9, 1.0, 1e9])
def test_float16_gradients_are_linear_in_the_incoming_gradients(size: float, name: str) -> None:
    """Without scaling, a float16 weight below 6e-8 would be 0, and one above 65,504 infinite."""
    x, y = pairs(40, 16, torch.float16)
    scale = torch.full((1, 40), 3.0)
    forward = info_nce_forward(x, y, scale)
    expected = gradients(loss_gradients(40), x, y, scale, forward, schedule=name)
    scaled = gradients([size * grad for grad in loss_gradients(40)], x, y, scale, forward, schedule=name)
    for actual, wanted in zip(scaled, expected, strict=True):
        torch.testing.assert_close(
            actual.double() / size, wanted.double(), rtol=0, atol=2e-3 * float(wanted.abs().max())
        )


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)], ids=str)
def test_half_precision_gradients_lose_one_rounding_of_the_weights(dtype: torch.dtype, rounding: float) -> None:
    """The error is at most two half-units of the dtype, relative to the largest entry.

    300 features take more than one block of features.
    """
    x, y = pairs(45, 300, dtype)
    scale = torch.full((1, 45), 10.0)
    forward = info_nce_forward(x, y, scale)
    grads = [grad.double() for grad in loss_gradients(45)]
    expected = gradients(grads, x.double(), y.double(), scale.double(), forward, reference.info_nce_backward)
    for name in ("fused", "banded"):
        for actual, wanted in zip(
            gradients(loss_gradients(45), x, y, scale, forward, schedule=name), expected, strict=True
        ):
            torch.testing.assert_close(actual.double(), wanted, rtol=0, atol=rounding * float(wanted.abs().max()))


def test_zero_incoming_gradients_give_zero_gradients() -> None:
    x, y = pairs(5, 4, torch.float16)
    scale = torch.full((1, 5), 1e6)
    forward = info_nce_forward(x, y, scale)
    for name in ("fused", "banded"):
        for grad in gradients(3 * [torch.zeros(1, 5)], x, y, scale, forward, schedule=name):
            assert torch.equal(grad, torch.zeros(1, 5, 4))


@pytest.mark.parametrize("b", [0, 1])
def test_gradients_have_the_shapes_of_the_inputs(b: int) -> None:
    """Padding does not show, and a batch of no problems is not an error."""
    x, y = pairs(3, 5, torch.bfloat16, b=b)
    scale = torch.ones(b, 3)
    forward = info_nce_forward(x, y, scale)
    assert forward[0].shape == (b, 3)
    for name in ("fused", "banded"):
        dx, dy = gradients(loss_gradients(3, b), x, y, scale, forward, schedule=name)
        assert dx.shape == dy.shape == (b, 3, 5)
        assert dx.dtype == torch.float32
        assert dx.is_contiguous()
