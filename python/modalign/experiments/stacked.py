"""Many copies of one module called at once: their parameters stacked on a leading dimension, the call vectorised."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Stacked"]


class Stacked:
    """One module for each run, its parameters (runs, ...), called by ``vmap`` as if they were one.

    modules: copies that differ in their parameters only, without buffers. which: the copy each run starts from.
    """

    def __init__(self, modules: Sequence[nn.Module], which: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        assert not list(modules[0].buffers()), "a stacked module has parameters only"
        stacked, _ = torch.func.stack_module_state(list(modules))
        self.parameters = {
            name: value.detach()[which].to(device=device, dtype=dtype).requires_grad_()
            for name, value in stacked.items()
        }
        skeleton = copy.deepcopy(modules[0]).to("meta")

        def call(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            out: Tensor = torch.func.functional_call(skeleton, parameters, (x,))
            return out

        self._each = torch.func.vmap(call, in_dims=(0, 0))
        self._same = torch.func.vmap(call, in_dims=(0, None))

    def __call__(self, x: Tensor) -> Tensor:
        """x: (runs, n, ...), a batch for each run; returns (runs, n, dim)."""
        return self._each(self.parameters, x)

    def on_same(self, x: Tensor) -> Tensor:
        """x: (n, ...), one batch for all runs; returns (runs, n, dim)."""
        return self._same(self.parameters, x)
