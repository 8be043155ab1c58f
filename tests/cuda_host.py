"""The kernels of csrc/cuda as modalign.ops._cuda calls them, for tests: on a CPU, or on a GPU where there is one.

On a CPU each instruction of csrc/cuda/shared/hopper.cuh is done as its manual says, by
tests/cuda_on_host/cuda/shared/hopper.cuh, and the threads of a block take turns.
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
    """tests/cuda_on_host/``name``.cpp as a library in ``folder``."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    assert compiler, "a C++ compiler is needed, as for the installation: put c++ on PATH or set CXX"
    library, source = folder / f"{name}.so", ROOT / f"tests/cuda_on_host/{name}.cpp"
    options = ["-std=c++20", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    options += [f"-I{ROOT / 'tests/cuda_on_host'}", f"-I{ROOT / 'csrc'}"]
    options += shlex.split(os.environ.get("CXXFLAGS", ""))
    subprocess.run([compiler, *options, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def on_host(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., None]) -> types.ModuleType:
    """modalign.ops._cuda with these in the place of the functions of modalign._cuda."""
    module = types.ModuleType("modalign._cuda")
    module.__dict__.update(functions)
    monkeypatch.setitem(sys.modules, "modalign._cuda", module)
    monkeypatch.setattr(modalign, "_cuda", module, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: types.SimpleNamespace(device_index=0, cuda_stream=0))
    found = importlib.util.find_spec("modalign.ops._cuda")
    copy = importlib.util.module_from_spec(found)  # of its own: the package's is not to keep these functions
    found.loader.exec_module(copy)
    return copy


def on_device() -> types.ModuleType:
    """modalign.ops._cuda, or a test that is skipped."""
    if importlib.util.find_spec("modalign._cuda") is None or not torch.cuda.is_available():
        pytest.skip("needs a GPU and modalign._cuda: make gpu has both; the host runs the same kernel")
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("the kernel is for compute capability 9.0; the host runs it too")
    from modalign.ops import _cuda

    return _cuda
