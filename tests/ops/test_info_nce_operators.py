"""The operators of the losses: every backend, option, dtype and shape against the float64 definition."""

import itertools

import pytest
import torch
from torch import Tensor

from modalign.ops.info_nce import backward_operator, forward_operator
from modalign.ops.sigmoid_loss import backward_operator as sigmoid_backward
from modalign.ops.sigmoid_loss import forward_operator as sigmoid_forward
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


def tables(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rows so long that logits reach tens, and softmaxes are neither flat nor one-hot; a scale for every row."""
    b, n, m, d = shape
    x, y = ((3 * torch.randn(b, size, d, dtype=torch.float64) / d**0.25).to(dtype).to(device) for size in (n, m))
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    return x, y, torch.linspace(0.5, 2.0, b * n, dtype=accumulator, device=device).reshape(b, n)


def masks(x: Tensor, y: Tensor, scale: Tensor, ids: bool, caps: bool) -> list[Tensor | None]:
    """row_id, col_id, row_cap, col_cap: groups of about three, a fifth of the rows left out, caps amid the logits."""
    sizes = [x.shape[:2], y.shape[:2]]
    both: list[Tensor | None] = [None, None]
    if ids:
        both = [torch.randint(-max(1, size[1] // 15), size[1] // 3 + 1, size).to(x.device) for size in sizes]
    if not caps:
        return [*both, None, None]
    # between the logits, so that rounding moves none across: caps of low-precision backends see the same sets
    logits = (scale.double()[:, :, None] * (x.double() @ y.double().mT)).cpu()
    cap = []
    for dim in (2, 1):
        ordered = logits.sort(dim).values
        ordered = ordered if dim == 2 else ordered.mT
        size = ordered.shape[2]
        gaps = ordered.diff(dim=2)
        at = gaps[..., size // 2 :].argmax(-1, keepdim=True) + size // 2 if size > 2 else None
        middle = ordered[..., -1] + 1 if at is None else (ordered.gather(2, at) + ordered.gather(2, at + 1))[..., 0] / 2
        cap.append(middle.to(scale.dtype).to(x.device))
    return [*both, *cap]


def interpreted(backend: str, device: str) -> bool:
    """Where a thousand rows take a minute."""
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
    if interpreted(loss_backend, device) and max(shape) >= 600:
        shape = (1, 130, 70, 20)
    x, y, scale = tables(shape, dtype, device)
    extra = masks(x, y, scale, ids, caps)
    args = (x, y, scale, *extra, mask, True, stats)
    if refuses(loss_backend, dtype, lambda: forward_operator(*args, 0, loss_backend)):
        return
    exact = [None if t is None else t.double() if t.is_floating_point() else t for t in (x, y, scale, *extra)]
    wanted = reference.info_nce_forward(*exact, mask, True, stats, 0)
    got = forward_operator(*args, 0, loss_backend)
    largest = 1 + float((x.double().norm(dim=2).max() * y.double().norm(dim=2).max()) * scale.max())
    names = ("row_lse", "col_lse", "positive", "stored", "row_best", "row_mean", "col_best", "col_mean")
    for name, actual, expected in zip(names, got, wanted, strict=True):
        assert actual.dtype == scale.dtype, name
        assert torch.equal(actual.isneginf(), expected.isneginf()), f"{name}: not empty in the same places"
        filled = ~expected.isneginf()
        assert actual.shape == expected.shape, name
        if filled.any():
            assert_close(actual[filled], expected[filled], largest, TOLERANCE[dtype].sums, name)

    grads = [torch.randn(size, dtype=scale.dtype, device=device) for size in (x.shape[:2], y.shape[:2], got[2].shape)]
    wanted = reference.info_nce_backward(
        *(grad.double() for grad in grads), *exact[:2], exact[1], exact[0], *exact[2:], mask, *wanted[:2], wanted[3]
    )
    got = backward_operator(*grads, x, y, y, x, scale, *extra, mask, got[0], got[1], got[3], loss_backend)
    for name, actual, expected in zip(("dx", "dy"), got, wanted, strict=True):
        assert actual.dtype == scale.dtype
        # the tile loops round W to half precision; results are float32
        assert_close(actual, expected, float(expected.abs().max()) + 1e-300, TOLERANCE[dtype].gradient, name)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
def test_sums_of_every_size_side_by_side(loss_backend: str, device: str, order: str, dtype: torch.dtype) -> None:
    """Log-sum-exps from 40 or less to 200 or more, in rows and in columns, in whatever order they come: what one shift
    serves, and what it cannot."""
    n, m = (70, 90) if interpreted(loss_backend, device) else (400, 600)
    x, y, scale = tables((1, n, m, 20), dtype, device)
    for table in (x, y):
        sizes = torch.logspace(-1, 0.7, table.shape[1], dtype=dtype, device=device)
        sizes = {"rising": sizes, "falling": sizes.flip(0), "mixed": sizes[torch.randperm(len(sizes))]}[order]
        table.mul_(sizes[:, None])
    args = (x, y, scale, *4 * [None], "none", True, False, 0)
    if refuses(loss_backend, dtype, lambda: forward_operator(*args, loss_backend)):
        return
    exact = (x.double(), y.double(), scale.double(), *4 * [None], "none")
    wanted = reference.info_nce_forward(*exact, True, False, 0)
    assert wanted[0].amin() < 40
    largest_lse = float(max(wanted[0].amax(), wanted[1].amax()))
    assert largest_lse > 200
    got = forward_operator(*args, loss_backend)
    for name, actual, expected in zip(("row_lse", "col_lse"), got, wanted, strict=False):
        # each within the rounding of its own logits
        largest = 1 + expected.abs()
        assert float(((actual - expected).abs() / largest).max()) < 20 * torch.finfo(dtype).eps, name
    grads = [torch.rand(size, dtype=dtype, device=device) for size in (x.shape[:2], y.shape[:2], got[2].shape)]
    wanted = reference.info_nce_backward(
        *(grad.double() for grad in grads), *exact[:2], exact[1], exact[0], *exact[2:], *wanted[:2], wanted[3]
    )
    got = backward_operator(*grads, x, y, y, x, scale, *4 * [None], "none", got[0], got[1], got[3], loss_backend)
    for name, actual, expected in zip(("dx", "dy"), got, wanted, strict=True):
        # the tolerance is for logits up to 40
        assert_close(actual, expected, float(expected.abs().max()), TOLERANCE[dtype].gradient * largest_lse / 40, name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 37, 37, 19), (1, 200, 300, 33)], ids=str)
def test_kept_logits_change_no_bit(
    loss_backend: str, device: str, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    """But for none against some on a GPU, whose tiles are not the same: the sums have another order."""
    if interpreted(loss_backend, device):
        shape = (shape[0], *(min(size, 100) for size in shape[1:]))  # four blocks of rows and two of columns
    x, y, scale = tables(shape, dtype, device)
    if refuses(
        loss_backend, dtype, lambda: forward_operator(x, y, scale, *4 * [None], "none", True, False, 0, loss_backend)
    ):
        return
    b, n, m, _ = shape
    results = []
    for rows in (0, 1, b * n // 2, b * n, 10 * b * n):
        forward = forward_operator(
            x, y, scale, *4 * [None], "none", True, False, rows * m * scale.itemsize + 1, loss_backend
        )
        assert forward[3].shape == (min(rows, b * n), m)
        grads = [torch.ones_like(forward[i]) for i in range(3)]
        products = backward_operator(
            *grads, x, y, y, x, scale, *4 * [None], "none", forward[0], forward[1], forward[3], loss_backend
        )
        results.append((*forward[:3], *products))
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
    x, _, _ = tables((2, n, n, d), dtype, device)
    scale = torch.tensor([0.7, 1.3], dtype=torch.float64 if dtype == torch.float64 else torch.float32, device=device)
    scale = scale[:, None].repeat(1, n)
    none = [None] * 4
    if refuses(
        loss_backend, dtype, lambda: forward_operator(x, None, scale, *none, "diagonal", False, False, 0, loss_backend)
    ):
        return
    for mask, ids, capped in (("diagonal", False, False), ("none", False, True), ("same", True, False)):
        row_id = torch.randint(-1, n // 3 + 1, (2, n), device=device) if ids else None
        cap = masks(x, x, scale, False, True)[2] if capped else None
        extra, twice = [row_id, row_id, cap, None], [row_id, row_id, cap, cap]
        got = forward_operator(x, None, scale, *extra, mask, False, True, 0, loss_backend)
        wanted = reference.info_nce_forward(x.double(), x.double(), scale.double(), *twice, mask, True, True, 0)
        filled = ~wanted[0].isneginf()
        assert torch.equal(filled, ~got[0].isneginf())
        largest = 1 + float((x.double().norm(dim=2).max() ** 2) * scale.max())
        for index in (0, 4, 5):
            if filled.any():
                assert_close(
                    got[index][filled], wanted[index][filled], largest, TOLERANCE[dtype].sums, f"output {index}"
                )
        assert got[1].numel() == got[2].numel() == 0
        grad, empty = torch.randn(2, n, dtype=scale.dtype, device=device), scale[:, :0]
        dx, dy = backward_operator(
            grad, empty, empty, x, None, x, None, scale, *extra, mask, got[0], empty, got[3], loss_backend
        )
        both = reference.info_nce_backward(
            grad.double(), grad.double(), empty.double(), *4 * [x.double()], scale.double(), *twice, mask, wanted[0],
            wanted[1], wanted[3],
        )  # fmt: skip
        assert dy.shape == (2, 0, d)
        assert_close(dx, both[0], float(both[0].abs().max()) + 1e-300, TOLERANCE[dtype].gradient, "dx")


def test_a_product_nobody_asks_for_is_not_made(loss_backend: str, device: str) -> None:
    x, y, scale = tables((2, 9, 6, 4), torch.float32, device)
    lse = forward_operator(x, y, scale, *4 * [None], "none", True, False, 0, loss_backend)
    grads = [torch.randn(2, 9, device=device), torch.randn(2, 6, device=device), scale[:, :0]]
    v, u = torch.randn(2, 6, 11, device=device), torch.randn(2, 9, 3, device=device)  # other widths than x's

    def products(v: Tensor | None, u: Tensor | None) -> tuple[Tensor, Tensor]:
        return backward_operator(*grads, x, y, v, u, scale, *4 * [None], "none", lse[0], lse[1], lse[3], loss_backend)

    by_row, by_col = products(v, u)
    assert (by_row.shape, by_col.shape) == ((2, 9, 11), (2, 6, 3))
    assert torch.equal(products(v, None)[0], by_row)
    assert torch.equal(products(None, u)[1], by_col)
    assert products(v, None)[1].shape == (2, 0, 4)
    assert products(None, u)[0].shape == (2, 0, 4)


def test_no_problem_is_no_error(loss_backend: str, device: str) -> None:
    x, scale = torch.zeros(0, 3, 2, device=device), torch.ones(0, 3, device=device)
    forward = forward_operator(x, x, scale, *4 * [None], "none", True, True, 99, loss_backend)
    assert [tuple(t.shape) for t in forward[:3]] == 3 * [(0, 3)]


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
    x, y, scale = tables(shape, dtype, device)
    bias = torch.linspace(-4, 1, shape[0], dtype=scale.dtype, device=device)
    row_id, col_id = masks(x, y, scale, ids, False)[:2]
    args = (x, y, scale, bias, row_id, col_id)
    if refuses(loss_backend, dtype, lambda: sigmoid_forward(*args, loss_backend)):
        return
    exact = [x.double(), y.double(), scale.double(), bias.double(), row_id, col_id]
    wanted = reference.sigmoid_loss_forward(*exact)
    got = sigmoid_forward(*args, loss_backend)
    largest = 5 + float((x.double().norm(dim=2).max() * y.double().norm(dim=2).max()) * scale.max())
    assert_close(got, wanted, largest * shape[2], TOLERANCE[dtype].sums, "loss")
    grad = torch.randn(shape[:2], dtype=scale.dtype, device=device)
    expected = reference.sigmoid_loss_backward(grad.double(), *exact, True, True)
    actual = sigmoid_backward(grad, *args, True, True, loss_backend)
    for name, one, two in zip(("dx", "dy", "slope"), actual, expected, strict=True):
        assert_close(one, two, float(two.abs().max()) + 1e-300, TOLERANCE[dtype].gradient, name)
    half = sigmoid_backward(grad, *args, False, True, loss_backend)
    assert half[0].shape == (shape[0], 0, shape[3])
    assert torch.equal(half[1], actual[1])


def test_sigmoid_loss_keeps_small_terms(loss_backend: str, device: str) -> None:
    """log(1 + exp(t)) for t = -40: 1 + exp(t) is 1 in float32, the loss is exp(-40)."""
    x = torch.eye(2, device=device)[None]
    loss = sigmoid_forward(
        x, x, torch.full((1, 2), 80.0, device=device), torch.tensor([-40.0], device=device), None, None, loss_backend
    )
    torch.testing.assert_close(loss.cpu(), torch.full((1, 2), 2 * 4.248354255291589e-18), rtol=1e-5, atol=0)
