"""Memory of training: what one run needs, and so how many runs train together in a chunk."""

from __future__ import annotations

import torch

from modalign.data import TRAIN, PairedDataset
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.training import Run, Trainer, inputs_of

__all__ = ["bytes_of_a_run", "runs_in_a_chunk"]


def runs_in_a_chunk(data: PairedDataset, sweep: Sweep) -> int:
    """Return the largest number of runs of a chunk: ``runs_at_once``, or fewer where ``memory_gib`` holds fewer.

    Raises:
        ValueError: If the encoders cannot take the data.
    """
    affordable = int(sweep.training.memory_gib * 2**30 / bytes_of_a_run(data, sweep))
    return max(1, min(sweep.training.runs_at_once, affordable))


def bytes_of_a_run(data: PairedDataset, sweep: Sweep) -> int:
    """Estimate the bytes that one run needs while it trains, from one step of it.

    They hold its batch, the tensors that a step saves for its gradients and as much again while these are computed, and
    its parameters with their gradients and the optimiser's two moments.
    """
    trainer = Trainer(data, [Run(sweep.strengths[0], sweep.seeds[0])], sweep)
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that no address is given out twice

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor

    batch = min(sweep.training.batch_size, trainer.count(TRAIN))
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        trainer.step(torch.arange(batch, device=trainer.device)[None])
    inputs = sum(batch * x[0].numel() * x.element_size() for x in inputs_of(data))
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in trainer.parameters.values())
    return inputs + 2 * sum(storage.nbytes() for storage in saved.values()) + 4 * parameters
