"""edge_products agrees with exact fractions, with the same bits on every backend, instruction set and thread count."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from modalign import _core
from modalign.ops.edge_products import edge_products
from modalign.ops.knn import DTYPES
from modalign.reference.knn import scores

pytestmark = pytest.mark.usefixtures("nan_filled_memory")

BACKENDS = ["cpp", "reference"]


def case(n: int, d: int, m: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    rows = torch.randn(n, d) * torch.logspace(-3, 3, n)[:, None]
    x = torch.randint(-128, 128, (n, d), dtype=torch.int8) if dtype == torch.int8 else rows.to(dtype)
    return x, torch.randint(n, (m,)), torch.randint(n, (m, k))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d", "m", "k"), [(1, 1, 1, 1), (5, 7, 3, 2), (40, 33, 65, 9), (300, 70, 200, 8)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_products_are_those_of_knn(backend: str, n: int, d: int, m: int, k: int, dtype: torch.dtype) -> None:
    x, items, others = case(n, d, m, k, dtype)
    expected = scores(x, x, "dot")[items[:, None], others]
    assert torch.equal(edge_products(x, items, others, backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_products_are_right(backend: str) -> None:
    x, items, others = case(6, 20, 4, 3, torch.float32)
    result = edge_products(x, items, others, backend)
    for r, i in enumerate(items.tolist()):
        for c, j in enumerate(others[r].tolist()):
            terms = [Fraction(a) * Fraction(b) for a, b in zip(x[i].tolist(), x[j].tolist(), strict=True)]
            # the bound for d additions of rounded products
            assert abs(Fraction(float(result[r, c])) - sum(terms)) <= 20 * Fraction(2) ** -53 * sum(map(abs, terms))


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_numbers_of_every_kind_are_read_exactly(backend: str) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        numbers = every.view(dtype)
        numbers = numbers[numbers.isfinite()][:, None]  # subnormals and both zeros too
        one = torch.cat([torch.ones(1, 1, dtype=dtype), numbers])
        others = torch.arange(1, len(one))[None]
        wide = one.repeat(1, 8) * torch.eye(8, dtype=dtype)[0]  # the first of eight features, and zeros
        for x in (one, wide):
            result = edge_products(x, torch.zeros(1, dtype=torch.int64), others, backend)
            assert torch.equal(result[0], numbers[:, 0].double())


def test_layout_is_of_no_matter() -> None:
    x, items, others = case(30, 12, 30, 6, torch.float32)
    expected = edge_products(x, items, others, "cpp")
    turned = (table.T.contiguous().T for table in (x, others))
    left, right = turned
    assert torch.equal(edge_products(left, items, right, "cpp"), expected)


@pytest.fixture
def _as_before() -> Iterator[None]:
    threads, level = torch.get_num_threads(), _core.isa()
    yield
    torch.set_num_threads(threads)
    _core.use_isa(level)


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_threads_and_instruction_sets_change_no_bit(dtype: torch.dtype) -> None:
    call = case(500, 45, 700, 11, dtype)
    expected = edge_products(*call, "cpp")
    for level in _core.isa_levels():
        _core.use_isa(level)
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(edge_products(*call, "cpp"), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck(backend: str) -> None:
    torch.library.opcheck(edge_products, (*case(6, 4, 5, 3, torch.float32), backend))
