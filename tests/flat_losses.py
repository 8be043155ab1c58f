"""The loss operators of a backend with positional tensors instead of dataclasses, for tests of kernels."""

from __future__ import annotations

import types
from typing import Any

from torch import Tensor

from modalign.ops.loss_tables import ForwardOptions, LossTables, Sums, WeightTables

__all__ = ["FlatLosses"]


class FlatLosses:
    """Wrap the four loss functions of a backend, which take dataclasses, as functions of tensors."""

    def __init__(self, *modules: types.ModuleType) -> None:
        self.modules = modules

    def _function(self, name: str) -> Any:
        return next(getattr(module, name) for module in self.modules if hasattr(module, name))

    def info_nce_forward(
        self, *tables: Any, mask: str = "none", columns: bool = True, stats: bool = False, workspace: int = 0
    ) -> Sums:
        """Call with x, y, logit_scale and optionally row_id, col_id, row_cap, col_cap, mask and options in order."""
        options = dict(zip(("columns", "stats", "workspace"), (columns, stats, workspace), strict=True))
        options.update(zip(options, tables[8:], strict=False))
        named = LossTables(*tables[:8]) if len(tables) > 7 else LossTables(*tables, mask=mask)
        sums: Sums = self._function("info_nce_forward")(named, ForwardOptions(**options))
        return sums

    def info_nce_backward(self, *tables: Any, **schedule: Any) -> tuple[Tensor, Tensor]:
        """Call with grad_row, grad_col, grad_positive, x, y, v, u, logit_scale, ids, caps, mask and forward results."""
        grads, (x, y, v, u), rows, saved = tables[:3], tables[3:7], tables[7:13], tables[13:]
        products: tuple[Tensor, Tensor]
        products = self._function("info_nce_backward")(
            LossTables(x, y, *rows), WeightTables(*grads, *saved), v, u, **schedule
        )
        return products

    def sigmoid_loss_forward(self, *tables: Any) -> Tensor:
        """Call with x, y, logit_scale, bias, row_id and col_id."""
        x, y, scale, bias, row_id, col_id = tables
        loss: Tensor = self._function("sigmoid_loss_forward")(LossTables(x, y, scale, row_id, col_id), bias)
        return loss

    def sigmoid_loss_backward(self, grad: Tensor, *tables: Any, **schedule: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Call with grad_row, x, y, logit_scale, bias, row_id, col_id, need_x and need_y."""
        x, y, scale, bias, row_id, col_id, need_x, need_y = tables
        grads: tuple[Tensor, Tensor, Tensor]
        grads = self._function("sigmoid_loss_backward")(
            LossTables(x, y, scale, row_id, col_id), bias, grad, need_x=need_x, need_y=need_y, **schedule
        )
        return grads
