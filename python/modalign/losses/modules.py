"""Losses as modules."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from modalign.common.checks import number, one_of
from modalign.losses.functional import info_nce, nt_xent, sigmoid_loss
from modalign.losses.options import DIRECTIONS, POSITIVES
from modalign.losses.reduction import REDUCTIONS

__all__ = ["InfoNCE", "NTXent", "SigmoidLoss"]


class _WithTemperature(nn.Module):
    """A temperature, fixed or trained as log(1 / temperature)."""

    def __init__(self, temperature: float, learnable: bool, max_scale: float) -> None:
        super().__init__()
        name = type(self).__name__
        if not 0 < number(name, "temperature", temperature) < math.inf:
            raise ValueError(f"{name}: temperature must be positive and finite, got {temperature}")
        if learnable and not 1 / temperature <= max_scale < math.inf:
            raise ValueError(
                f"{name}: max_scale must be at least 1 / temperature = {1 / temperature:g}, got {max_scale}"
            )
        self.learnable, self.max_scale, self.fixed_temperature = learnable, max_scale, float(temperature)
        if learnable:
            # float32 whatever the embeddings are: in float16 a small step of the optimiser would be lost
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature), dtype=torch.float32))

    @property
    def temperature(self) -> float | Tensor:
        """The temperature in use: a float, or a tensor of the graph when learnable."""
        if not self.learnable:
            return self.fixed_temperature
        return (-self.log_scale.clamp(max=math.log(self.max_scale))).exp()

    def extra_repr(self) -> str:
        return f"temperature={torch.as_tensor(self.temperature).item():g}, learnable={self.learnable}"


def _listed(options: dict[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in options.items())


class InfoNCE(_WithTemperature):
    """InfoNCE of paired embeddings: ``modalign.info_nce`` with a temperature of its own.

        loss = mean_i  (log sum_j exp S_ij + log sum_j exp S_ji) / 2 - S_ii,   S = cos(x_i, y_j) / temperature

    Args:
        temperature: the starting temperature, positive.
        learnable: train the temperature. The parameter is ``log_scale`` = log(1 / temperature), as CLIP does.
        max_scale: a learnable 1 / temperature never exceeds this (CLIP's 100): the scale is clamped where it is used,
            and its gradient is zero beyond the clamp.
        normalize, direction, positives, label_smoothing, margin, reduction, workspace, backend: as in
            ``modalign.info_nce``.

    ``loss(x, y, **more)`` passes negatives, queue, groups, teacher, weights, ignore and stats on to it. Shapes, dtypes,
    memory and errors are those of ``modalign.info_nce``.
    Source: Radford et al. 2021 (arXiv:2103.00020), section 2.5 for the temperature.

    Examples:
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
        direction: str = "both",
        positives: str = "pair",
        label_smoothing: float = 0.0,
        margin: float | None = None,
        reduction: str = "mean",
        workspace: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(temperature, learnable, max_scale)
        one_of("InfoNCE", "direction", direction, DIRECTIONS)
        one_of("InfoNCE", "positives", positives, POSITIVES)
        one_of("InfoNCE", "reduction", reduction, REDUCTIONS)
        self.options: dict[str, Any] = {
            "normalize": normalize, "direction": direction, "positives": positives, "label_smoothing": label_smoothing,
            "margin": margin, "reduction": reduction, "workspace": workspace, "backend": backend,
        }  # fmt: skip

    def forward(self, x: Tensor, y: Tensor, **more: Any) -> Any:
        return info_nce(x, y, temperature=self.temperature, **self.options, **more)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}{_listed(self.options)}"


class NTXent(_WithTemperature):
    """SimCLR's loss of two views: ``modalign.nt_xent`` with a temperature of its own, fixed or learnable.

    ``loss(x, y)``; temperature, learnable, max_scale as in ``modalign.InfoNCE``, the rest as in ``modalign.nt_xent``.

    Examples:
        >>> import torch, modalign
        >>> round(modalign.NTXent(temperature=0.5)(torch.eye(4), torch.eye(4)).item(), 4)
        0.5944
    """

    def __init__(
        self,
        temperature: float = 0.5,
        *,
        learnable: bool = False,
        max_scale: float = 100.0,
        normalize: bool = True,
        reduction: str = "mean",
        backend: str = "auto",
    ) -> None:
        super().__init__(temperature, learnable, max_scale)
        one_of("NTXent", "reduction", reduction, REDUCTIONS)
        self.options: dict[str, Any] = {"normalize": normalize, "reduction": reduction, "backend": backend}

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return nt_xent(x, y, temperature=self.temperature, **self.options)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}{_listed(self.options)}"


class SigmoidLoss(_WithTemperature):
    """SigLIP's loss: ``modalign.sigmoid_loss`` with a temperature and a bias of its own, learnable as in the paper.

    ``loss(x, y, **more)`` passes groups and ignore on. temperature, learnable, max_scale as in ``modalign.InfoNCE``;
    ``bias`` is a parameter too when learnable; the rest as in ``modalign.sigmoid_loss``.

    Examples:
        >>> import torch, modalign
        >>> loss = modalign.SigmoidLoss(learnable=True)
        >>> loss(torch.randn(8, 16), torch.randn(8, 16)).backward()
        >>> loss.bias.grad is not None
        True
    """

    bias: float | Tensor

    def __init__(
        self,
        temperature: float = 0.1,
        bias: float = -10.0,
        *,
        learnable: bool = False,
        max_scale: float = 100.0,
        normalize: bool = True,
        reduction: str = "mean",
        backend: str = "auto",
    ) -> None:
        super().__init__(temperature, learnable, max_scale)
        one_of("SigmoidLoss", "reduction", reduction, REDUCTIONS)
        if not math.isfinite(bias):
            raise ValueError(f"SigmoidLoss: bias must be finite, got {bias}")
        self.bias = nn.Parameter(torch.tensor(float(bias), dtype=torch.float32)) if learnable else float(bias)
        self.options: dict[str, Any] = {"normalize": normalize, "reduction": reduction, "backend": backend}

    def forward(self, x: Tensor, y: Tensor, **more: Any) -> Tensor:
        return sigmoid_loss(x, y, temperature=self.temperature, bias=self.bias, **self.options, **more)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bias={torch.as_tensor(self.bias).item():g}{_listed(self.options)}"
