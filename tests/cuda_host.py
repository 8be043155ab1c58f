"""Run the kernels of csrc/cuda through modalign.ops._cuda, on a CPU or on a GPU.

On a CPU, tests/cuda_on_host/cuda/shared/hopper.cuh emulates each instruction of csrc/cuda/shared/hopper.cuh by the
PTX manual, and the threads of a block run in turns.
"""

import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import modalign

ROOT = Path(__file__).parents[1]


def compiled(name: str, folder: Path) -> ctypes.CDLL:
    """Compile tests/cuda_on_host/``name``.cpp into a library in ``folder`` and load it."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    assert compiler, "the tests need a C++ compiler, as the installation does: put c++ on PATH or set CXX"
    library, source = folder / f"{name}.so", ROOT / f"tests/cuda_on_host/{name}.cpp"
    options = ["-std=c++20", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    options += [f"-I{ROOT / 'tests/cuda_on_host'}", f"-I{ROOT / 'csrc'}"]
    options += shlex.split(os.environ.get("CXXFLAGS", ""))
    subprocess.run([compiler, *options, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def on_host(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., None]) -> types.ModuleType:
    """Return a copy of modalign.ops._cuda that calls the given functions instead of those of modalign._cuda."""
    module = types.ModuleType("modalign._cuda")
    module.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, "modalign._cuda", module)
    monkeypatch.setattr(modalign, "_cuda", module, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: types.SimpleNamespace(device_index=0, cuda_stream=0))
    spec = importlib.util.find_spec("modalign.ops._cuda")
    copy = importlib.util.module_from_spec(spec)  # a copy, so that the package's module does not keep these functions
    spec.loader.exec_module(copy)
    return copy


def on_device() -> types.ModuleType:
    """Return modalign.ops._cuda, or skip the test if there is no GPU of compute capability 9.0."""
    if importlib.util.find_spec("modalign._cuda") is None or not torch.cuda.is_available():
        pytest.skip("needs a GPU and modalign._cuda (see make gpu); the same kernel is tested on the host")
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs compute capability 9.0; the same kernel is tested on the host")
    from modalign.ops import _cuda

    return _cuda
