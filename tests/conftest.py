"""What every test runs under: the triton interpreter, fixed seeds, and fresh memory that is never zero by luck."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported: this suite needs no GPU

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


@pytest.fixture(params=[*(f"cpp-{level}" for level in _core.isa_levels()), "triton", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every backend of this machine by name, the compiled core once for each instruction set the processor has."""
    name, _, level = request.param.partition("-")
    if level:
        before = _core.isa()
        _core.use_isa(level)
        yield name
        _core.use_isa(before)
    else:
        yield name


@pytest.fixture
def device(backend: str) -> str:
    """Where a backend's tensors live: triton's on the GPU if there is one, in the interpreter otherwise."""
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
