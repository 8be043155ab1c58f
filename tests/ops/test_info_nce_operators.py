"""The operators of the losses: every backend, option, dtype and shape agrees with the float64 definition."""

import dataclasses
import functools
import itertools

import pytest
import torch
from torch import Tensor

from modalign.ops.info_nce import info_nce_backward, info_nce_forward
from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables
from modalign.ops.sigmoid_loss import sigmoid_loss_backward, sigmoid_loss_forward
from modalign.reference import info_nce as reference
from tolerances import TOLERANCE, assert_close, refuses

pytestmark = pytest.mark.usefixtures("nan_filled_memory")

# problems, rows, columns, features
SHAPES = [(1, 1, 1, 1), (2, 7, 7, 3), (1, 37, 53, 19), (3, 33, 33, 65), (1, 5, 1, 130), (1, 4, 9, 513)]
LARGE = [(1, 1153, 1153, 20), (2, 259, 300, 130)]  # several stripes, several groups of columns
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# mask, with ids, with caps, with stats
OPTIONS = [
    ("none", False, False, False),
    ("diagonal", False, False, False),
    ("diagonal", True, False, True),
    ("none", True, True, True),
    ("same", True, False, True),
    ("different", True, False, False),
    ("same", True, True, True),
    ("diagonal", False, True, True),
]


def tables(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> LossTables:
    """Return rows so long that logits reach tens and softmaxes are neither flat nor one-hot, and a scale for each."""
    b, n, m, d = shape
    x, y = ((3 * torch.randn(b, size, d, dtype=torch.float64) / d**0.25).to(dtype).to(device) for size in (n, m))
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    return LossTables(x, y, torch.linspace(0.5, 2.0, b * n, dtype=accumulator, device=device).reshape(b, n))


def with_ids(call: LossTables) -> LossTables:
    """Return the tables with groups of about three rows, and a fifth of the rows left out."""
    b, n, m, _ = call.sizes
    row_id, col_id = (torch.randint(-max(1, size // 15), size // 3 + 1, (b, size)).to(call.x.device) for size in (n, m))
    return dataclasses.replace(call, row_id=row_id, col_id=col_id)


def with_caps(call: LossTables) -> LossTables:
    """Return the tables with caps between the logits.

    Rounding moves no logit across a cap, so backends of low precision count the same entries.
    """
    logits = (call.logit_scale.double()[:, :, None] * (call.x.double() @ call.right.double().mT)).cpu()
    caps = []
    for dim in (2, 1):
        ordered = logits.sort(dim).values
        ordered = ordered if dim == 2 else ordered.mT
        size = ordered.shape[2]
        if size > 2:
            gaps = ordered.diff(dim=2)
            lower = gaps[..., size // 2 :].argmax(-1, keepdim=True) + size // 2
            middle = (ordered.gather(2, lower) + ordered.gather(2, lower + 1))[..., 0] / 2
        else:
            middle = ordered[..., -1] + 1
        caps.append(middle.to(call.dtype).to(call.x.device))
    return dataclasses.replace(call, row_cap=caps[0], col_cap=caps[1])


def in_float64(call: LossTables) -> LossTables:
    """Return the tables with floating-point numbers in float64."""
    return LossTables(*(t.double() if isinstance(t, Tensor) and t.is_floating_point() else t for t in call.flat()))


def weight_tables(grads: list[Tensor], sums: Sums) -> WeightTables:
    grad_row, grad_col, grad_positive = grads
    return WeightTables(
        grad_row, grad_col, grad_positive, row_lse=sums.row_lse, col_lse=sums.col_lse, stored=sums.stored
    )


def exact_gradients(call: LossTables, grads: list[Tensor], sums: Sums) -> tuple[Tensor, Tensor]:
    """Return dx and dy by the definition, for tables and sums in float64."""
    weights = weight_tables([grad.double() for grad in grads], sums)
    return reference.info_nce_backward(call, weights, call.y, call.x)


def largest_logit(call: LossTables) -> float:
    """Return a bound on the logits."""
    lengths = [float(rows.double().norm(dim=2).max()) for rows in (call.x, call.right)]
    return lengths[0] * lengths[1] * float(call.logit_scale.max())


# in the interpreter, whose tiles of losses have 32 rows and 64 columns: nine stripes of rows, the last of three, which
# are combined eight at a time; two problems with several tiles on both sides and remainders of both
LARGE_INTERPRETED = dict(zip(LARGE, [(1, 259, 70, 20), (2, 67, 140, 130)], strict=True))
SEVERAL_TILES = dict(zip(LARGE, [(1, 67, 70, 20), (2, 35, 70, 130)], strict=True))


def interpreted(backend: str, device: str) -> bool:
    """Return whether kernels run in the interpreter, where a thousand rows take a minute."""
    return backend == "triton" and device == "cpu"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("option", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_forward_and_backward_agree_with_float64(
    loss_backend: str,
    device: str,
    shape: tuple[int, int, int, int],
    option: tuple[str, bool, bool, bool],
    dtype: torch.dtype,
) -> None:
    mask, ids, caps, stats = option
    if interpreted(loss_backend, device) and shape in LARGE:
        is_turn = dtype == DTYPES[1 + OPTIONS.index(option) % 3]  # of the dtype, which alternates over the options
        shape = (LARGE_INTERPRETED if is_turn else SEVERAL_TILES)[shape]
    call = dataclasses.replace(tables(shape, dtype, device), mask=mask)
    call = with_ids(call) if ids else call
    call = with_caps(call) if caps else call
    options = ForwardOptions(stats=stats)
    if refuses(loss_backend, dtype, lambda: info_nce_forward(call, options, loss_backend)):
        return
    exact = in_float64(call)
    wanted_sums = reference.info_nce_forward(exact, options)
    sums = info_nce_forward(call, options, loss_backend)
    largest = 1 + largest_logit(call)
    for name, actual, expected in zip(Sums._fields, sums, wanted_sums, strict=True):
        assert actual.dtype == call.dtype, name
        assert torch.equal(actual.isneginf(), expected.isneginf()), f"{name}: not empty in the same places"
        filled = ~expected.isneginf()
        assert actual.shape == expected.shape, name
        if filled.any():
            assert_close(actual[filled], expected[filled], largest, TOLERANCE[dtype].sums, name)

    sizes = (call.x.shape[:2], call.right.shape[:2], sums.positive.shape)
    grads = [torch.randn(size, dtype=call.dtype, device=device) for size in sizes]
    wanted = exact_gradients(exact, grads, wanted_sums)
    products = info_nce_backward(call, weight_tables(grads, sums), call.y, call.x, backend=loss_backend)
    for name, actual, expected in zip(("dx", "dy"), products, wanted, strict=True):
        assert actual.dtype == call.dtype
        # the tile loops round W to half precision; results are float32
        assert_close(actual, expected, float(expected.abs().max()) + 1e-300, TOLERANCE[dtype].gradient, name)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_sums_of_every_size_side_by_side(loss_backend: str, device: str, order: str, dtype: torch.dtype) -> None:
    """Log-sum-exps from 40 or less to 200 or more, in rows and in columns, in every order, keep their digits.

    Some of them can share the shift of an exponential, others cannot.
    """
    n, m = (70, 90) if interpreted(loss_backend, device) else (400, 600)
    call = tables((1, n, m, 20), dtype, device)
    for table in (call.x, call.right):
        sizes = torch.logspace(-1, 0.7, table.shape[1], dtype=dtype, device=device)
        sizes = {"rising": sizes, "falling": sizes.flip(0), "mixed": sizes[torch.randperm(len(sizes))]}[order]
        table.mul_(sizes[:, None])
    options = ForwardOptions()
    if refuses(loss_backend, dtype, lambda: info_nce_forward(call, options, loss_backend)):
        return
    exact = in_float64(call)
    wanted_sums = reference.info_nce_forward(exact, options)
    assert wanted_sums.row_lse.amin() < 40
    largest_lse = float(max(wanted_sums.row_lse.amax(), wanted_sums.col_lse.amax()))
    assert largest_lse > 200
    sums = info_nce_forward(call, options, loss_backend)
    for name, actual, expected in zip(("row_lse", "col_lse"), sums, wanted_sums, strict=False):
        # each within the rounding of its own logits
        largest = 1 + expected.abs()
        assert float(((actual - expected).abs() / largest).max()) < 20 * torch.finfo(dtype).eps, name
    sizes = (call.x.shape[:2], call.right.shape[:2], sums.positive.shape)
    grads = [torch.rand(size, dtype=dtype, device=device) for size in sizes]
    wanted = exact_gradients(exact, grads, wanted_sums)
    products = info_nce_backward(call, weight_tables(grads, sums), call.y, call.x, backend=loss_backend)
    for name, actual, expected in zip(("dx", "dy"), products, wanted, strict=True):
        # the tolerance is for logits up to 40
        assert_close(actual, expected, float(expected.abs().max()), TOLERANCE[dtype].gradient * largest_lse / 40, name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 37, 37, 19), (1, 200, 300, 33)], ids=str)
def test_stored_logits_change_no_bit(
    loss_backend: str, device: str, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    """On a GPU tiles differ between none and some stored logits, and with them the order of the sums."""
    if interpreted(loss_backend, device):
        shape = (shape[0], *(min(size, 100) for size in shape[1:]))  # four blocks of rows and two of columns
    call = tables(shape, dtype, device)
    if refuses(loss_backend, dtype, lambda: info_nce_forward(call, ForwardOptions(), loss_backend)):
        return
    b, n, m, _ = shape
    results = []
    for rows in (0, 1, b * n // 2, b * n, 10 * b * n):
        options = ForwardOptions(workspace=rows * m * call.dtype.itemsize + 1)
        sums = info_nce_forward(call, options, loss_backend)
        assert sums.stored.shape == (min(rows, b * n), m)
        grads = [torch.ones_like(table) for table in sums[:3]]
        products = info_nce_backward(call, weight_tables(grads, sums), call.y, call.x, backend=loss_backend)
        results.append((*sums[:3], *products))
    without, *kept = results
    for other in kept:
        assert all(torch.equal(one, two) for one, two in zip(kept[0], other, strict=True))
    for i, (one, two) in enumerate(zip(without, kept[0], strict=True)):
        if device == "cpu":
            assert torch.equal(one, two)
        else:
            allowed = TOLERANCE[dtype].sums if i < 3 else TOLERANCE[dtype].gradient
            assert_close(one, two, 1 + float(two.abs().max()), allowed, f"output {i}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 3), (45, 19), (700, 20)])
def test_one_stream_is_two_with_the_same_rows(
    loss_backend: str, device: str, n: int, d: int, dtype: torch.dtype
) -> None:
    n = min(n, 90) if interpreted(loss_backend, device) else n
    x = tables((2, n, n, d), dtype, device).x
    scale = torch.tensor([0.7, 1.3], dtype=torch.float64 if dtype == torch.float64 else torch.float32, device=device)
    plain = LossTables(x, None, scale[:, None].repeat(1, n))
    forward = functools.partial(info_nce_forward, options=ForwardOptions(columns=False, stats=True))
    if refuses(loss_backend, dtype, lambda: forward(plain, backend=loss_backend)):
        return
    for mask, ids, capped in (("diagonal", False, False), ("none", False, True), ("same", True, False)):
        row_id = torch.randint(-1, n // 3 + 1, (2, n), device=device) if ids else None
        cap = with_caps(plain).row_cap if capped else None
        call = dataclasses.replace(plain, row_id=row_id, col_id=row_id, row_cap=cap, mask=mask)
        exact = in_float64(call.two_streams())
        sums = forward(call, backend=loss_backend)
        wanted_sums = reference.info_nce_forward(exact, ForwardOptions(stats=True))
        filled = ~wanted_sums.row_lse.isneginf()
        assert torch.equal(filled, ~sums.row_lse.isneginf())
        largest = 1 + largest_logit(call)
        for name in ("row_lse", "row_best", "row_mean"):
            if filled.any():
                actual, expected = getattr(sums, name)[filled], getattr(wanted_sums, name)[filled]
                assert_close(actual, expected, largest, TOLERANCE[dtype].sums, name)
        assert sums.col_lse.numel() == sums.positive.numel() == 0
        grad, empty = torch.randn(2, n, dtype=call.dtype, device=device), call.logit_scale[:, :0]
        weights = weight_tables([grad, empty, empty], sums)
        dx, dy = info_nce_backward(call, weights, x, None, backend=loss_backend)
        both = exact_gradients(exact, [grad, grad, empty], wanted_sums)
        assert dy.shape == (2, 0, d)
        assert_close(dx, both[0], float(both[0].abs().max()) + 1e-300, TOLERANCE[dtype].gradient, "dx")


def test_a_product_without_a_table_is_not_computed(loss_backend: str, device: str) -> None:
    call = tables((2, 9, 6, 4), torch.float32, device)
    sums = info_nce_forward(call, ForwardOptions(), loss_backend)
    grads = [torch.randn(2, 9, device=device), torch.randn(2, 6, device=device), call.logit_scale[:, :0]]
    v, u = torch.randn(2, 6, 11, device=device), torch.randn(2, 9, 3, device=device)  # other widths than x's

    def products(v: Tensor | None, u: Tensor | None) -> tuple[Tensor, Tensor]:
        return info_nce_backward(call, weight_tables(grads, sums), v, u, backend=loss_backend)

    by_row, by_col = products(v, u)
    assert (by_row.shape, by_col.shape) == ((2, 9, 11), (2, 6, 3))
    assert torch.equal(products(v, None)[0], by_row)
    assert torch.equal(products(None, u)[1], by_col)
    assert products(v, None)[1].shape == (2, 0, 4)
    assert products(None, u)[0].shape == (2, 0, 4)


def test_no_problem_is_no_error(loss_backend: str, device: str) -> None:
    x, scale = torch.zeros(0, 3, 2, device=device), torch.ones(0, 3, device=device)
    sums = info_nce_forward(LossTables(x, x, scale), ForwardOptions(stats=True, workspace=99), loss_backend)
    assert [tuple(table.shape) for table in sums[:3]] == 3 * [(0, 3)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "ids"),
    list(itertools.product([(1, 1, 1, 1), (2, 7, 9, 3), (1, 37, 53, 65), (1, 700, 700, 20)], [False, True])),
    ids=str,
)
def test_sigmoid_loss_agrees_with_float64(
    loss_backend: str, device: str, shape: tuple[int, int, int, int], ids: bool, dtype: torch.dtype
) -> None:
    if interpreted(loss_backend, device) and max(shape) >= 600:
        shape = (1, 130, 70, 20)
    call = tables(shape, dtype, device)
    call = with_ids(call) if ids else call
    bias = torch.linspace(-4, 1, shape[0], dtype=call.dtype, device=device)
    if refuses(loss_backend, dtype, lambda: sigmoid_loss_forward(call, bias, loss_backend)):
        return
    exact = in_float64(call)
    wanted_loss = reference.sigmoid_loss_forward(exact, bias.double())
    loss = sigmoid_loss_forward(call, bias, loss_backend)
    assert_close(loss, wanted_loss, (5 + largest_logit(call)) * shape[2], TOLERANCE[dtype].sums, "loss")
    grad = torch.randn(shape[:2], dtype=call.dtype, device=device)
    expected = reference.sigmoid_loss_backward(exact, bias.double(), grad.double(), need_x=True, need_y=True)
    backward = functools.partial(sigmoid_loss_backward, call, bias, grad, backend=loss_backend)
    actual = backward(need_x=True, need_y=True)
    for name, one, two in zip(("dx", "dy", "slope"), actual, expected, strict=True):
        assert_close(one, two, float(two.abs().max()) + 1e-300, TOLERANCE[dtype].gradient, name)
    half = backward(need_x=False, need_y=True)
    assert half[0].shape == (shape[0], 0, shape[3])
    assert torch.equal(half[1], actual[1])


def test_sigmoid_loss_keeps_small_terms(loss_backend: str, device: str) -> None:
    """For t = -40, log(1 + exp(t)) is exp(-40), although 1 + exp(t) is 1 in float32."""
    x = torch.eye(2, device=device)[None]
    call = LossTables(x, x, torch.full((1, 2), 80.0, device=device))
    loss = sigmoid_loss_forward(call, torch.tensor([-40.0], device=device), loss_backend)
    torch.testing.assert_close(loss.cpu(), torch.full((1, 2), 2 * 4.248354255291589e-18), rtol=1e-5, atol=0)
