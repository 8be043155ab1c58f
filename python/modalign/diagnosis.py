"""Reports on backends: which one would run a call, and what this installation can run."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from modalign.common import provenance
from modalign.common.names import suggestion
from modalign.ops import dispatch
from modalign.ops.dispatch import OPERATIONS

__all__ = ["doctor", "explain"]


def explain(operation: str, *args: Any, backend: str = "auto") -> dispatch.Choice:
    """Return which backend would run an operation on these arguments, and why each other backend would not.

    Args:
        operation: the name of an operation: "info_nce", "sigmoid_loss", "knn", "knn_blocks", "neighbor_overlap",
            "neighborhood_scores", "relabelled_overlap" or "edge_products".
        args: the tensors of the call, as the function of that name takes them.
        backend: "auto", or the backend that the call names.

    Returns:
        A ``Choice`` with the fields operation, arguments, backend and refusals. It prints as a short list.

    Raises:
        ValueError: the operation or the backend does not exist.
        TypeError: no tensor follows the name of the operation.

    Examples:
        >>> import torch, modalign
        >>> modalign.explain("info_nce", torch.ones(2, 3), torch.ones(2, 3)).backend
        'cpp'
    """
    if operation not in OPERATIONS:
        hint = suggestion(operation, OPERATIONS)
        raise ValueError(f"explain: operation must be one of {sorted(OPERATIONS)}, got {operation!r}{hint}")
    if not args or not isinstance(args[0], torch.Tensor):
        came = type(args[0]).__name__ if args else "nothing"
        raise TypeError(f"explain: the tensors of {operation} must follow its name, got {came}")
    return dispatch.choose(dispatch.load_operation(operation), backend, args)


def doctor() -> str:
    """Return a text that says what this installation can run.

    The text lists versions, the machine, the instruction sets of the compiled core, the compute capabilities that the
    CUDA kernels are built for, the devices, and the backends of every operation on each kind of device, with the reason
    for each backend that would not run.

    Examples:
        >>> import modalign
        >>> modalign.doctor().startswith("modalign")
        True
    """
    from modalign import _core

    facts = provenance.collect()
    versions, machine = facts["versions"], facts["machine"]
    packages = [f"{name} {version or 'not installed'}" for name, version in versions.items() if name != "modalign"]
    from_environment = " (MODALIGN_ISA)" if os.environ.get("MODALIGN_ISA") else ""
    lines = [
        f"modalign {versions['modalign']} ({facts['modalign_commit']})",
        f"  {', '.join(packages)}",
        f"  {machine['platform']}, {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads",
        f"compiled core: {_core.compiler}; instruction sets {', '.join(_core.isa_levels())}; in use {_core.isa()}"
        f"{from_environment}",
        f"CUDA kernels: {_describe_cuda()}",
        f"devices: cpu{''.join(f', cuda:{i} {name}' for i, name in enumerate(machine['gpus']))}",
    ]
    devices = ["cpu"] + (["cuda"] if machine["gpus"] else [])
    for device in devices:
        lines += [str(explain(name, *dispatch.load_operation(name).example(device))) for name in OPERATIONS]
    # an operation in the memory of the host has the same answer for every device
    return "\n".join(dict.fromkeys(lines))


def _describe_cuda() -> str:
    if importlib.util.find_spec("modalign._cuda") is None:
        return "modalign._cuda is not built (install with -C cmake.define.MODALIGN_WITH_CUDA=ON)"
    from modalign import _cuda as module

    return str(module.architectures)
