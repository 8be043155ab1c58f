"""Losses as modules."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modalign.functional import REDUCTIONS, info_nce

__all__ = ["InfoNCE"]


class InfoNCE(nn.Module):
    """Symmetric InfoNCE of paired embeddings: ``modalign.info_nce`` with a temperature of its own.

        loss = mean_i  (log sum_j exp S_ij + log sum_j exp S_ji) / 2 - S_ii,   S = cos(x_i, y_j) / temperature

    Args:
        temperature: the starting temperature, positive.
        learnable: train the temperature. The parameter is ``log_scale`` = log(1 / temperature), as CLIP does.
        max_scale: a learnable 1 / temperature never exceeds this (CLIP's 100): the scale is clamped where it is used,
            and its gradient is zero beyond the clamp.
        normalize, reduction, backend: as in ``modalign.info_nce``.

    Shapes, dtypes, memory and errors are those of ``modalign.info_nce``.
    Source: Radford et al. 2021 (arXiv:2103.00020), section 2.5 for the temperature.

    Example:
        >>> import torch, modalign
        >>> loss = modalign.InfoNCE(temperature=0.07, learnable=True)
        >>> loss(torch.randn(8, 16), torch.randn(8, 16)).backward()
        >>> loss.log_scale.grad is not None
        True
    """

    def __init__(
        self,
        temperature: float = 0.07,
        *,
        learnable: bool = False,
        max_scale: float = 100.0,
        normalize: bool = True,
        reduction: str = "mean",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"InfoNCE: temperature must be positive and finite, got {temperature}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"InfoNCE: reduction must be one of {REDUCTIONS}, got {reduction!r}")
        if learnable and not 1 / temperature <= max_scale < math.inf:
            raise ValueError(
                f"InfoNCE: max_scale must be at least 1 / temperature = {1 / temperature:g}, got {max_scale}"
            )
        self.learnable, self.max_scale = learnable, max_scale
        self.normalize, self.reduction, self.backend = normalize, reduction, backend
        self.fixed_temperature = float(temperature)
        if learnable:
            # float32 whatever the embeddings are: in float16 a small step of the optimiser would be lost
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature), dtype=torch.float32))

    @property
    def temperature(self) -> float | Tensor:
        """The temperature in use: a float, or a tensor of the graph when learnable."""
        if not self.learnable:
            return self.fixed_temperature
        return (-self.log_scale.clamp(max=math.log(self.max_scale))).exp()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return info_nce(
            x, y, temperature=self.temperature, normalize=self.normalize, reduction=self.reduction, backend=self.backend
        )

    def extra_repr(self) -> str:
        temperature = torch.as_tensor(self.temperature).item()
        return f"temperature={temperature:g}, learnable={self.learnable}, reduction={self.reduction!r}"
