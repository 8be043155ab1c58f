"""Settings and fixtures of all tests: Triton's interpreter, fixed seeds, NaN-filled memory, and the backends."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # set before a kernel is imported; the tests need no GPU
# nan_filled_memory needs deterministic algorithms, for which torch needs this in matrix products on a GPU
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# set before torch starts its threads: waiting threads sleep instead of spinning, which helps on a busy machine
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# tables are as wide as in a pipe, whatever terminal the tests run in
os.environ.pop("COLUMNS", None)

from collections.abc import Iterator
from pathlib import Path

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
    """Fill the memory of torch.empty with NaN or the largest integer, so that an unwritten output fails its test."""
    torch.use_deterministic_algorithms(True)  # fills uninitialised memory, torch.utils.deterministic
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


# avx512bf16 differs from avx512 only in the losses of bfloat16 inputs
CPP = [f"cpp-{level}" for level in _core.isa_levels() if level != "avx512bf16"]
BFLOAT16 = [f"cpp-{level}" for level in _core.isa_levels() if level == "avx512bf16"]


# the best instruction set has every screen of knn; the code of knn for avx512 is the same as for the best one
BEST, *OTHERS = _core.isa_levels()
GRAPHS = [f"cpp-{BEST}-{screen}" for screen in _core.screens()] + [f"cpp-{isa}" for isa in OTHERS if isa != "avx512"]


@pytest.fixture(params=[*GRAPHS, "triton", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of each backend of k-NN graphs; the compiled core runs once for each instruction set of the processor."""
    yield from _running(request.param)


@pytest.fixture(params=[*BFLOAT16, *CPP, "triton", "torch", "reference"])
def loss_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of each backend of the losses; the compiled core runs once for each instruction set of the processor."""
    yield from _running(request.param)


# files that take minutes begin first, so that no process waits for the last of them at the end
LONG = {
    "distributed/test_checker.py",
    "distributed/test_compiled.py",
    "experiments/test_cluster.py",
    "experiments/test_resume.py",
    "experiments/test_studies.py",
    "information/test_estimate.py",
    "kernels/test_survivors.py",
    "neighbors/test_approximate.py",
    "ops/test_info_nce_operators.py",
    "report/test_pages_in_browser.py",
    "test_docs.py",
    "test_many_gpus.py",
    "test_wheel.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Remove tests of other dtypes on the instruction set that differs only for bfloat16, and let long files begin."""
    repeated = []
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("loss_backend") in BFLOAT16 and parameters.get("dtype", torch.bfloat16) != torch.bfloat16:
            repeated.append(item)
    items[:] = [item for item in items if item not in repeated]
    root = Path(__file__).parent
    items.sort(key=lambda item: str(item.path.relative_to(root)) not in LONG)


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
    """Device of a backend's tensors: the GPU for Triton if there is one, otherwise the CPU."""
    name = next(request.getfixturevalue(n) for n in ("backend", "loss_backend") if n in request.fixturenames)
    return "cuda" if name == "triton" and torch.cuda.is_available() else "cpu"
