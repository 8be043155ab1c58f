"""What every test runs under: the triton interpreter, fixed seeds, and fresh memory that is never zero by luck."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before any kernel is imported: this suite needs no GPU
# nan_filled_memory asks torch for deterministic algorithms, of which its matrix products on a GPU are none without this
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# before torch loads its threads: on a machine that is busy with other things they wait asleep, not spinning
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from modalign import _core


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def nan_filled_memory() -> Iterator[None]:
    """torch.empty gives NaN, or the largest integer: an output that a kernel forgets to write cannot pass."""
    torch.use_deterministic_algorithms(True)  # fills uninitialised memory, torch.utils.deterministic
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


# avx512bf16 is avx512 but for the losses of bfloat16 inputs
CPP = [f"cpp-{level}" for level in _core.isa_levels() if level != "avx512bf16"]
BFLOAT16 = [f"cpp-{level}" for level in _core.isa_levels() if level == "avx512bf16"]


# the best level has every screen of knn; for knn avx512 is no other code
BEST, *OTHERS = _core.isa_levels()
GRAPHS = [f"cpp-{BEST}-{screen}" for screen in _core.screens()] + [f"cpp-{one}" for one in OTHERS if one != "avx512"]


@pytest.fixture(params=[*GRAPHS, "triton", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every backend of the graphs by name, the compiled core once for each instruction set the processor has."""
    yield from _running(request.param)


@pytest.fixture(params=[*BFLOAT16, *CPP, "triton", "torch", "reference"])
def loss_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every backend of the losses, likewise."""
    yield from _running(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of other dtypes are not repeated on an instruction set that changes bfloat16 alone."""
    repeated = []
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("loss_backend") in BFLOAT16 and parameters.get("dtype", torch.bfloat16) != torch.bfloat16:
            repeated.append(item)
    items[:] = [item for item in items if item not in repeated]


def _running(parameter: str) -> Iterator[str]:
    name, level, screen = (*parameter.split("-"), "", "")[:3]
    if level:
        before = _core.isa()
        _core.use_isa(level)
        _core.use_screen(screen or "auto")
        yield name
        _core.use_screen("auto")
        _core.use_isa(before)
    else:
        yield name


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Where a backend's tensors live: triton's on the GPU if there is one, in the interpreter otherwise."""
    name = next(request.getfixturevalue(n) for n in ("backend", "loss_backend") if n in request.fixturenames)
    return "cuda" if name == "triton" and torch.cuda.is_available() else "cpu"
