"""Many copies of one module called at once: their parameters stacked on a leading dimension, the call vectorised."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modalign.encoders import EncoderConfig, build_encoder, is_frozen
from modalign.encoders.networks import Features

__all__ = ["Fixed", "Stacked", "stacked_encoder"]


class Stacked:
    """One module for each run, its parameters (runs, ...), called by ``vmap`` as if they were one.

    modules: copies that differ in their parameters only, without buffers. which: the copy each run starts from.
    parameters: what is trained; constants: what a module holds without training it.
    """

    def __init__(self, modules: Sequence[nn.Module], which: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        assert not list(modules[0].buffers()), "a stacked module has parameters only"
        stacked, _ = torch.func.stack_module_state(list(modules))
        of_runs = {name: value.detach()[which].to(device=device, dtype=dtype) for name, value in stacked.items()}
        trained = {name for name, parameter in modules[0].named_parameters() if parameter.requires_grad}
        self.parameters = {name: value.requires_grad_() for name, value in of_runs.items() if name in trained}
        self.constants = {name: value for name, value in of_runs.items() if name not in trained}
        skeleton = copy.deepcopy(modules[0])
        # a weight of two names becomes two on the meta device, and the second would be read as it never was written
        if len(list(skeleton.named_parameters(remove_duplicate=False))) == len(stacked):
            skeleton = skeleton.to("meta")

        def call(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            out: Tensor = torch.func.functional_call(skeleton, parameters, (x,))
            return out

        self._each = torch.func.vmap(call, in_dims=(0, 0))
        self._same = torch.func.vmap(call, in_dims=(0, None))

    def __call__(self, x: Tensor) -> Tensor:
        """x: (runs, n, ...), a batch for each run; returns (runs, n, dim)."""
        return self._each(self.parameters | self.constants, x)

    def on_same(self, x: Tensor) -> Tensor:
        """x: (n, ...), one batch for all runs; returns (runs, n, dim)."""
        return self._same(self.parameters | self.constants, x)


class Fixed:
    """Modules that are not trained, called as ``Stacked`` ones are.

    modules: one for all runs, or several. which: whose each run is. Outputs are in ``dtype``.
    """

    def __init__(self, modules: Sequence[nn.Module], which: Tensor, dtype: torch.dtype, device: torch.device) -> None:
        self.modules = [module.to(device=device, dtype=dtype) for module in modules]
        self.which, self.dtype, self.device = which.tolist(), dtype, device
        self.parameters: dict[str, Tensor] = {}
        states = [module.state_dict() for module in self.modules]
        # where all runs share one module, whoever makes it again has its weights
        names = states[0] if len(states) > 1 else ()
        self.constants = {name: torch.stack([state[name] for state in states])[which] for name in names}

    @property
    def costly(self) -> bool:
        """Whether calling the module that all runs share once for every row saves anything."""
        return len(self.modules) == 1 and not isinstance(self.modules[0], Features)

    @torch.no_grad()
    def features(self, x: Tensor, module: int = 0) -> Tensor:
        """What one of the modules makes of x (n, ...): (n, dim)."""
        out: Tensor = self.modules[module](x)
        return out.to(self.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (runs, n, ...), a batch for each run; returns (runs, n, dim)."""
        return torch.stack([self.features(rows, module) for rows, module in zip(x, self.which, strict=True)])

    def on_same(self, x: Tensor) -> Tensor:
        """x: (n, ...), one batch for all runs; returns (runs, n, dim)."""
        found = [self.features(x, module) for module in range(len(self.modules))]
        return torch.stack([found[module] for module in self.which])

    def known(self) -> Fixed:
        """What stands in for this where the inputs are its features."""
        return Fixed([Features()], torch.tensor(self.which), self.dtype, self.device)


def stacked_encoder(
    config: EncoderConfig,
    example: Tensor,
    seeds: Sequence[int],
    which: Tensor,
    dtype: torch.dtype,
    device: torch.device,
) -> Stacked | Fixed:
    """The encoders of all runs: which[r] says from which of the initial seeds run r has its own."""
    if not is_frozen(config):
        return Stacked([build_encoder(config, example, seed) for seed in seeds], which, dtype, device)
    modules: list[nn.Module] = []
    places = []
    for seed in seeds:
        module = build_encoder(config, example, seed)
        # pretrained weights do not follow the seed: one copy serves all runs
        if not modules or not _equal(module, modules[0]):
            modules.append(module)
        places.append(len(modules) - 1 if modules[-1] is module else 0)
    return Fixed(modules, torch.tensor(places)[which], dtype, device)


def _equal(one: nn.Module, two: nn.Module) -> bool:
    other = two.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())
