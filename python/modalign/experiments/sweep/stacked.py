"""Many copies of one module called at once: their parameters stacked on a leading dimension, the call vectorised."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modalign.encoders import EncoderConfig, build_encoder, is_frozen
from modalign.encoders.networks import Features

__all__ = ["Fixed", "Layout", "Stacked", "stacked_encoder"]


@dataclass(frozen=True)
class Layout:
    """Layout of the runs of a chunk.

    Args:
        copies: (runs,) int64, for each run the index of the copy that it starts from.
        dtype: Of parameters and outputs.
        device: Of parameters and outputs.
    """

    copies: Tensor
    dtype: torch.dtype
    device: torch.device


class Stacked:
    """Modules, one for each run, with parameters of shape (runs, ...), called by ``vmap`` as if they were one.

    Args:
        modules: Copies that differ in their parameters only, without buffers. Dropout is drawn for a module that has
            ``dropout_masks(n, generator)`` and takes them as its second argument.
        layout: Which copy each run starts from, dtype and device.

    Attributes:
        has_dropout: True if a training step drops values.
        parameters: Trained tensors (runs, ...) by name.
        constants: Tensors (runs, ...) by name that the module holds without training them.
    """

    def __init__(self, modules: Sequence[nn.Module], layout: Layout) -> None:
        assert not list(modules[0].buffers()), "a stacked module has parameters only"
        stacked, _ = torch.func.stack_module_state(list(modules))
        by_run = {
            name: value.detach()[layout.copies].to(device=layout.device, dtype=layout.dtype)
            for name, value in stacked.items()
        }
        trained = {name for name, parameter in modules[0].named_parameters() if parameter.requires_grad}
        self.parameters = {name: value.requires_grad_() for name, value in by_run.items() if name in trained}
        self.constants = {name: value for name, value in by_run.items() if name not in trained}
        skeleton = copy.deepcopy(modules[0])
        # a weight of two names becomes two on the meta device, and the second would be read as it never was written
        if len(list(skeleton.named_parameters(remove_duplicate=False))) == len(stacked):
            skeleton = skeleton.to("meta")

        def call(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            out: Tensor = torch.func.functional_call(skeleton, parameters, (x,))
            return out

        def call_with_dropout(parameters: dict[str, Tensor], x: Tensor, masks: list[Tensor]) -> Tensor:
            out: Tensor = torch.func.functional_call(skeleton, parameters, (x, masks))
            return out

        self._device = layout.device
        self._draw: Callable[..., list[Tensor]] = getattr(modules[0], "dropout_masks", _no_masks)
        self.has_dropout = self._draw is not _no_masks
        self._call_each = torch.func.vmap(call, in_dims=(0, 0))
        self._call_on_same = torch.func.vmap(call, in_dims=(0, None))
        self._call_in_training = torch.func.vmap(call_with_dropout, in_dims=(0, 0, 0))

    def __call__(self, x: Tensor, dropout: Sequence[int] | None = None) -> Tensor:
        """Return the outputs (runs, n, dim) for x (runs, n, ...), a batch for each run.

        dropout: The seed of each run's dropout, for a step of training; None for evaluation.
        """
        parameters = self.parameters | self.constants
        if dropout is None or not self.has_dropout:
            return self._call_each(parameters, x)
        generators = {seed: torch.Generator(self._device).manual_seed(seed) for seed in dropout}
        masks = {seed: self._draw(x.shape[1], generator) for seed, generator in generators.items()}
        by_run = [torch.stack(parts) for parts in zip(*(masks[seed] for seed in dropout), strict=True)]
        return self._call_in_training(parameters, x, by_run)

    def on_same(self, x: Tensor) -> Tensor:
        """Return the outputs (runs, n, dim) for x (n, ...), one batch for all runs."""
        return self._call_on_same(self.parameters | self.constants, x)


class Fixed:
    """Modules that are not trained, called as ``Stacked`` ones are.

    Args:
        modules: One for all runs, or several.
        layout: Which module each run has, dtype and device.

    Attributes:
        parameters: Always empty.
        constants: Tensors (runs, ...) by name where there are several modules. A single one follows from its
            configuration and is not kept.
    """

    has_dropout = False

    def __init__(self, modules: Sequence[nn.Module], layout: Layout) -> None:
        self.modules = [module.to(device=layout.device, dtype=layout.dtype) for module in modules]
        self.layout = layout
        self._module_of_run: list[int] = layout.copies.tolist()
        self.parameters: dict[str, Tensor] = {}
        states = [module.state_dict() for module in self.modules]
        names = states[0] if len(states) > 1 else ()
        self.constants = {name: torch.stack([state[name] for state in states])[layout.copies] for name in names}

    @property
    def is_worth_caching(self) -> bool:
        """True if all runs share one module and calling it takes time, so that one call for every row saves some."""
        return len(self.modules) == 1 and not isinstance(self.modules[0], Features)

    @torch.no_grad()
    def features(self, x: Tensor, module: int = 0) -> Tensor:
        """Return the output (n, dim) of one of the modules for x (n, ...)."""
        out: Tensor = self.modules[module](x)
        return out.to(self.layout.dtype)

    def __call__(self, x: Tensor, dropout: Sequence[int] | None = None) -> Tensor:
        """Return the outputs (runs, n, dim) for x (runs, n, ...), a batch for each run; nothing is dropped."""
        return torch.stack([self.features(rows, module) for rows, module in zip(x, self._module_of_run, strict=True)])

    def on_same(self, x: Tensor) -> Tensor:
        """Return the outputs (runs, n, dim) for x (n, ...), one batch for all runs."""
        outputs = [self.features(x, module) for module in range(len(self.modules))]
        return torch.stack([outputs[module] for module in self._module_of_run])

    def without_modules(self) -> Fixed:
        """Return the replacement to call where the inputs are this one's features already."""
        return Fixed([Features()], self.layout)


def _no_masks(n: int, generator: torch.Generator) -> list[Tensor]:
    return []


def stacked_encoder(config: EncoderConfig, example: Tensor, seeds: Sequence[int], layout: Layout) -> Stacked | Fixed:
    """Build the encoders of all runs.

    Args:
        config: Configuration of the encoder.
        example: (n, ...) every row of the modality.
        seeds: Initial seeds; copy i has weights from seeds[i].
        layout: Which copy each run starts from, dtype and device.
    """
    if not is_frozen(config):
        return Stacked([build_encoder(config, example, seed) for seed in seeds], layout)
    modules: list[nn.Module] = []
    places = []
    for seed in seeds:
        module = build_encoder(config, example, seed)
        # pretrained weights do not follow the seed: one copy serves all runs
        if not modules or not _have_equal_weights(module, modules[0]):
            modules.append(module)
        places.append(len(modules) - 1 if modules[-1] is module else 0)
    return Fixed(modules, Layout(torch.tensor(places)[layout.copies], layout.dtype, layout.device))


def _have_equal_weights(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())
