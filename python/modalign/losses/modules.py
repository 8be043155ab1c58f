"""The contrastive losses as modules, with a temperature that is fixed or trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from modalign.common.checks import number, one_of, require_tensor
from modalign.distributed.party import ProcessGroup, copied_as_it_is
from modalign.distributed.sharding import require_process_group
from modalign.losses.functional import info_nce, nt_xent, sigmoid_loss
from modalign.losses.options import DIRECTIONS, POSITIVES, require_choices

__all__ = ["InfoNCE", "NTXent", "SigmoidLoss"]

Options = dict[str, Any]


class _WithTemperature(nn.Module):
    """A loss with a temperature, fixed or trained as log(1 / temperature), and fixed options."""

    process_group: ProcessGroup = "unset"

    def __init__(
        self, temperature: float, *, learnable: bool, max_scale: float, process_group: ProcessGroup, options: Options
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not 0 < number(name, "temperature", temperature) < math.inf:
            raise ValueError(f"{name}: temperature must be positive and finite, got {temperature}")
        if learnable and not math.isfinite(number(name, "max_scale", max_scale)):
            raise ValueError(f"{name}: max_scale must be finite, got {max_scale}")
        if learnable and max_scale < 1 / temperature:
            raise ValueError(
                f"{name}: max_scale must be at least 1 / temperature = {1 / temperature:g}, got {max_scale}"
            )
        require_choices(name, options["reduction"], options["check_finite"])
        require_process_group(name, process_group)
        self.learnable, self.max_scale, self.fixed_temperature = learnable, max_scale, float(temperature)
        self.process_group, self.options = copied_as_it_is(process_group), options
        if learnable:
            self.log_scale = _parameter(math.log(1 / temperature))

    def reset_parameters(self) -> None:
        """Set the parameters to their initial values, as after ``to_empty`` of a module made on the meta device."""
        for name, parameter in self.named_parameters(recurse=False):
            nn.init.constant_(parameter, self._initial_values()[name])

    def _initial_values(self) -> dict[str, float]:
        return {"log_scale": math.log(1 / self.fixed_temperature)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Load parameters without dimensions, as earlier versions saved them, too."""
        for name, parameter in self.named_parameters(prefix.removesuffix("."), recurse=False):
            saved = state_dict.get(name)
            if isinstance(saved, Tensor) and saved.ndim < parameter.ndim:
                state_dict[name] = saved.reshape(parameter.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @property
    def temperature(self) -> float | Tensor:
        """The temperature in use: a float, or a tensor of the graph when it is learnable."""
        if not self.learnable:
            return self.fixed_temperature
        require_tensor(type(self).__name__, "log_scale", self.log_scale)  # no part of it, as outside a sharded module
        return (-self.log_scale.reshape(()).clamp(max=math.log(self.max_scale))).exp()

    def extra_repr(self) -> str:
        options = {"learnable": self.learnable, **self.options, "process_group": self.process_group}
        words = [f"{name}={value!r}" for name, value in options.items()]
        if all(map(_holds_value, self.parameters(recurse=False))):
            values = {name: torch.as_tensor(value).item() for name, value in self._numbers().items()}
            words = [*(f"{name}={value:g}" for name, value in values.items()), *words]
        return ", ".join(words)

    def _numbers(self) -> dict[str, float | Tensor]:
        return {"temperature": self.temperature}


def _parameter(value: float) -> nn.Parameter:
    """Return a parameter of one element.

    It is float32 whatever the embeddings are: in float16 a small step of the optimiser would be lost. It has a
    dimension, because ``fully_shard`` takes no parameter without.
    """
    return nn.Parameter(torch.tensor([value], dtype=torch.float32))


def _holds_value(parameter: Tensor) -> bool:
    """Return whether this process can read the parameter: it is neither sharded nor on the meta device."""
    return parameter.numel() == 1 and parameter.device.type != "meta" and not hasattr(parameter, "full_tensor")


class InfoNCE(_WithTemperature):
    """InfoNCE (the CLIP loss) of paired embeddings, with a fixed or learnable temperature.

        loss = mean_i  (log sum_j exp S_ij + log sum_j exp S_ji) / 2 - S_ii,   S = cos(x_i, y_j) / temperature

    ``loss(x, y, **options)`` calls ``modalign.info_nce``, to which it passes negatives, queue, groups, teacher,
    weights, ignore and stats. Shapes, dtypes, memory and errors are those of ``modalign.info_nce``.

    Args:
        temperature: positive float, the temperature or its initial value.
        learnable: bool. Train the temperature, as the parameter ``log_scale`` = log(1 / temperature) of shape (1,), as
            CLIP does.
        max_scale: float. A learnable 1 / temperature never exceeds it (CLIP's 100): the scale is clamped where it is
            used, and its gradient is zero beyond the clamp.
        normalize: bool, as in ``modalign.info_nce``.
        direction: "both", "x_to_y" or "y_to_x", as in ``modalign.info_nce``.
        positives: "pair", "out" or "in", as in ``modalign.info_nce``.
        label_smoothing: float in [0, 1), as in ``modalign.info_nce``.
        margin: float or None, as in ``modalign.info_nce``.
        reduction: "mean", "sum" or "none", as in ``modalign.info_nce``.
        workspace: number of bytes or None, as in ``modalign.info_nce``.
        check_finite: "auto", True or False, as in ``modalign.info_nce``.
        process_group: the ranks whose rows are one batch: "world", a process group, a ``DeviceMesh`` of one dimension
            or a ``modalign.distributed.Sharding``, as in ``modalign.info_nce``. "self" is this process alone; so is
            "unset", which warns once where torch.distributed has several processes.
        backend: "auto" or the name of a backend, as in ``modalign.info_nce``.

    Raises:
        TypeError, ValueError: a temperature that is not a positive number, a max_scale below 1 / temperature, or an
            unknown direction, positives, reduction, check_finite or process group.

    Source:
        Radford et al. 2021 (arXiv:2103.00020), section 2.5 for the temperature.

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
        check_finite: bool | str = "auto",
        process_group: ProcessGroup = "unset",
        backend: str = "auto",
    ) -> None:
        one_of("InfoNCE", "direction", direction, DIRECTIONS)
        one_of("InfoNCE", "positives", positives, POSITIVES)
        options: Options = {
            "normalize": normalize,
            "direction": direction,
            "positives": positives,
            "label_smoothing": label_smoothing,
            "margin": margin,
            "reduction": reduction,
            "workspace": workspace,
            "check_finite": check_finite,
            "backend": backend,
        }
        super().__init__(
            temperature, learnable=learnable, max_scale=max_scale, process_group=process_group, options=options
        )

    def forward(self, x: Tensor, y: Tensor, **options: Any) -> Any:
        """Return the loss of the pairs (..., n, d); ``options`` go to ``modalign.info_nce``."""
        options = {"process_group": self.process_group, **options}
        return info_nce(x, y, temperature=self.temperature, **self.options, **options)


class NTXent(_WithTemperature):
    """SimCLR's loss (NT-Xent) of two views, with a fixed or learnable temperature.

    ``loss(x, y)`` calls ``modalign.nt_xent``, whose shapes, dtypes, memory and errors it has.

    Args:
        temperature: positive float, the temperature or its initial value.
        learnable: bool, as in ``modalign.InfoNCE``.
        max_scale: float, as in ``modalign.InfoNCE``.
        normalize: bool, as in ``modalign.nt_xent``.
        reduction: "mean", "sum" or "none", as in ``modalign.nt_xent``.
        check_finite: "auto", True or False, as in ``modalign.info_nce``.
        process_group: as in ``modalign.InfoNCE``.
        backend: "auto" or the name of a backend, as in ``modalign.nt_xent``.

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
        check_finite: bool | str = "auto",
        process_group: ProcessGroup = "unset",
        backend: str = "auto",
    ) -> None:
        options: Options = {
            "normalize": normalize,
            "reduction": reduction,
            "check_finite": check_finite,
            "backend": backend,
        }
        super().__init__(
            temperature, learnable=learnable, max_scale=max_scale, process_group=process_group, options=options
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of the views (..., n, d)."""
        return nt_xent(x, y, temperature=self.temperature, process_group=self.process_group, **self.options)


class SigmoidLoss(_WithTemperature):
    """SigLIP's loss, with a temperature and a bias that are fixed or, as in the paper, learnable.

    ``loss(x, y, **options)`` calls ``modalign.sigmoid_loss``, to which it passes groups and ignore, and whose shapes,
    dtypes, memory and errors it has.

    Args:
        temperature: positive float, the temperature or its initial value.
        bias: finite float, the bias or its initial value.
        learnable: bool. Train the temperature, as in ``modalign.InfoNCE``, and the parameter ``bias`` of shape (1,).
        max_scale: float, as in ``modalign.InfoNCE``.
        normalize: bool, as in ``modalign.sigmoid_loss``.
        reduction: "mean", "sum" or "none", as in ``modalign.sigmoid_loss``.
        check_finite: "auto", True or False, as in ``modalign.info_nce``.
        process_group: as in ``modalign.InfoNCE``.
        backend: "auto" or the name of a backend, as in ``modalign.sigmoid_loss``.

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
        check_finite: bool | str = "auto",
        process_group: ProcessGroup = "unset",
        backend: str = "auto",
    ) -> None:
        options: Options = {
            "normalize": normalize,
            "reduction": reduction,
            "check_finite": check_finite,
            "backend": backend,
        }
        super().__init__(
            temperature, learnable=learnable, max_scale=max_scale, process_group=process_group, options=options
        )
        if not math.isfinite(number("SigmoidLoss", "bias", bias)):
            raise ValueError(f"SigmoidLoss: bias must be finite, got {bias}")
        self.fixed_bias = float(bias)
        self.bias = _parameter(self.fixed_bias) if learnable else self.fixed_bias

    def forward(self, x: Tensor, y: Tensor, **options: Any) -> Tensor:
        """Return the loss of the pairs (..., n, d); ``options`` go to ``modalign.sigmoid_loss``."""
        options = {"process_group": self.process_group, **options}
        return sigmoid_loss(x, y, temperature=self.temperature, bias=self.bias, **self.options, **options)

    def _initial_values(self) -> dict[str, float]:
        return {**super()._initial_values(), "bias": self.fixed_bias}

    def _numbers(self) -> dict[str, float | Tensor]:
        return {**super()._numbers(), "bias": self.bias}
