"""Which backend would run a call, and what this installation can do."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from modalign.common import provenance
from modalign.ops import dispatch
from modalign.ops.edge_products import EDGE_PRODUCTS
from modalign.ops.info_nce import INFO_NCE
from modalign.ops.knn import KNN
from modalign.ops.neighbor_overlap import NEIGHBOR_OVERLAP
from modalign.ops.neighborhoods import NEIGHBORHOOD_SCORES, RELABELLED_OVERLAP
from modalign.ops.sigmoid_loss import SIGMOID_LOSS

__all__ = ["doctor", "explain"]

OPERATIONS = {
    operation.name: operation
    for operation in (
        INFO_NCE,
        SIGMOID_LOSS,
        KNN,
        NEIGHBOR_OVERLAP,
        NEIGHBORHOOD_SCORES,
        RELABELLED_OVERLAP,
        EDGE_PRODUCTS,
    )
}


def explain(operation: str, *args: Any, backend: str = "auto") -> dispatch.Choice:
    """Which backend would run ``operation`` on these arguments, and why each other one would not.

    operation: "info_nce", "sigmoid_loss", "knn", "neighbor_overlap", "neighborhood_scores", "relabelled_overlap" or
        "edge_products"; args: its tensors, as the function of that name takes them.
    Returns a Choice that prints as a short list. Raises ValueError for an operation or a backend that does not exist.

    Examples:
        >>> import torch, modalign
        >>> modalign.explain("info_nce", torch.ones(2, 3), torch.ones(2, 3)).backend
        'cpp'
    """
    if operation not in OPERATIONS:
        raise ValueError(f"explain: operation must be one of {sorted(OPERATIONS)}, got {operation!r}")
    if not args or not isinstance(args[0], torch.Tensor):
        came = type(args[0]).__name__ if args else "nothing"
        raise TypeError(f"explain: {operation}'s tensors must follow, got {came}")
    return dispatch.choose(OPERATIONS[operation], backend, *args)


def doctor() -> str:
    """What this installation can do, as text: versions, compiled core, devices, and every operation's backends.

    Examples:
        >>> import modalign
        >>> modalign.doctor().startswith("modalign")
        True
    """
    from modalign import _core

    facts = provenance.collect()
    versions, machine = facts["versions"], facts["machine"]
    lines = [
        f"modalign {versions['modalign']} ({facts['modalign_commit']})",
        "  "
        + ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items() if name != "modalign"),
        f"  {machine['platform']}, {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads",
        f"compiled core: {_core.compiler}; instruction sets {', '.join(_core.isa_levels())}; in use {_core.isa()}"
        + (" (MODALIGN_ISA)" if os.environ.get("MODALIGN_ISA") else ""),
        f"CUDA kernels: {_cuda()}",
        f"devices: cpu{''.join(f', cuda:{i} {name}' for i, name in enumerate(machine['gpus']))}",
    ]
    devices = ["cpu"] + (["cuda"] if machine["gpus"] else [])
    for device in devices:
        x = torch.ones(4, 4, device=device)
        indices = torch.arange(4, device=device).reshape(2, 2)
        lines += [
            str(explain("info_nce", x, x)),
            str(explain("sigmoid_loss", x, x)),
            str(explain("knn", x)),
            *(
                str(explain(name, indices, indices))
                for name in OPERATIONS
                if name.startswith(("neighbor", "relabelled"))
            ),
            str(explain("edge_products", x, indices[0], indices)),
        ]
    return "\n".join(lines)


def _cuda() -> str:
    if importlib.util.find_spec("modalign._cuda") is None:
        return "modalign._cuda is not built (install with -C cmake.define.MODALIGN_WITH_CUDA=ON)"
    from modalign import _cuda as module

    return str(module.architectures)
