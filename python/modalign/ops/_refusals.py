"""The reasons that backends give for refusing a call, shared by the tables of implementations.

Each function returns the reason as a phrase, or None if there is no reason to refuse.
"""

from __future__ import annotations

import importlib
import importlib.util
import os

import torch
from torch import Tensor

__all__ = [
    "interpreter_is_for_tests",
    "no_cuda_module",
    "no_hopper",
    "no_triton",
    "not_measured",
    "not_on_cpu",
    "triton_interpreted",
    "wrong_dtype",
]


def wrong_dtype(x: Tensor, takes: tuple[torch.dtype, ...]) -> str | None:
    """Refuse rows of another dtype than those that the backend takes."""
    if x.dtype in takes:
        return None
    return f"dtype {x.dtype} (takes {', '.join(str(dtype).removeprefix('torch.') for dtype in takes)})"


def not_on_cpu(x: Tensor) -> str | None:
    """Refuse rows that are not on the CPU."""
    return None if x.device.type == "cpu" else f"device {x.device.type} (takes cpu)"


def triton_interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter, which is slow and meant for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def no_triton(x: Tensor) -> str | None:
    """Refuse where Triton cannot run: it is not installed, or the rows are neither on a GPU nor interpreted."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if x.device.type == "cuda":
        return None
    if x.device.type == "cpu" and triton_interpreted():
        return None
    return f"device {x.device.type} (takes cuda; cpu only in the interpreter, with TRITON_INTERPRET=1)"


def interpreter_is_for_tests(x: Tensor, *_: object) -> str | None:
    """Refuse Triton's interpreter unless the call names the backend."""
    return "the interpreter is never chosen by itself" if x.device.type == "cpu" else None


def no_cuda_module(x: Tensor) -> str | None:
    """Refuse rows that are not on a GPU, and installations without the compiled CUDA kernels."""
    if x.device.type != "cuda":
        return f"device {x.device.type} (takes cuda)"
    if importlib.util.find_spec("modalign._cuda") is None:
        return "modalign._cuda is not built (install with -C cmake.define.MODALIGN_WITH_CUDA=ON)"
    return None


def no_hopper(x: Tensor) -> str | None:
    """Refuse where the kernels of sm_90a, which work together with Triton's, cannot run."""
    reason = no_cuda_module(x) or no_triton(x)
    if reason is None and torch.cuda.get_device_capability(x.device) != (9, 0):
        major, minor = torch.cuda.get_device_capability(x.device)
        reason = f"compute capability {major}.{minor} (takes 9.0)"
    if reason is None and "90a" not in importlib.import_module("modalign._cuda").architectures:
        reason = "modalign._cuda is built without sm_90a (CMAKE_CUDA_ARCHITECTURES must have 90a)"
    return reason


def not_measured(*_: object) -> str:
    """Refuse unless the call names the backend, which has not been compared with Triton's in speed."""
    return "it runs only if the call names it, until its speed has been compared with triton's"
