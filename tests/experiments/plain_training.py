"""One run in plain PyTorch, the loss as it is written: the definition that training many runs at once must meet."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from modalign.data import PairedDataset
from modalign.encoders import build_encoder, seeded_module, width_of
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.randomness import batch_order, initial_seed, label_budget, labelled_pairs
from modalign.experiments.sweep.training import Run

__all__ = ["train_alone"]

Parts = dict[str, nn.Module]


def train_alone(
    data: PairedDataset, run: Run, sweep: Sweep, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Train one run on two modalities.

    Returns:
        Parameters by name, mean losses (epochs, 3) of both tasks and the alignment term, test accuracies (epochs, 2).
    """
    inputs = [data.x, data.y]
    labels = [data.labels, data.labels_y if data.labels_y is not None else data.labels]
    train, test = data.split == 0, data.split == 2
    parts = {name: part.to(dtype) for name, part in _networks(inputs, run, sweep).items()}
    parameters = {
        f"{name}.{key}": p for name, part in parts.items() for key, p in part.named_parameters() if p.requires_grad
    }
    settings = sweep.training
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
    )
    n, batch = int(train.sum()), settings.batch_size
    known = data.has_label()[train]
    labelled = known.clone()
    labelled[known] = labelled_pairs(
        data.labels[train][known], label_budget(settings.labels, int(known.sum())), run.seed
    )
    losses, accuracies = [], []
    for epoch in range(settings.epochs):
        order, sums = batch_order(run.seed, epoch, n), torch.zeros(3, dtype=torch.float64)
        batches = [order[start : start + batch] for start in range(0, n - batch + 1, batch)]
        for rows in batches:
            z = [parts[f"encoders.{m}"](inputs[m][train][rows]).to(dtype) for m in (0, 1)]
            z = [output if output.requires_grad else output.requires_grad_() for output in z]
            known = labelled[rows]
            tasks = [F.cross_entropy(parts[f"heads.{m}"](z[m][known]), labels[m][train][rows][known]) for m in (0, 1)]
            alignment = _alignment_loss(parts, z, sweep)
            optimizer.zero_grad()
            (tasks[0] + tasks[1] + _weight(run, sweep, tasks, alignment, z=z) * alignment).backward()
            if settings.clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters.values(), settings.clip)
            optimizer.step()
            sums += torch.stack([*tasks, alignment]).detach().double()
        losses.append(sums / len(batches))
        with torch.no_grad():
            outputs = [parts[f"heads.{m}"](parts[f"encoders.{m}"](inputs[m][test]).to(dtype)) for m in (0, 1)]
            correct = [(outputs[m].argmax(1) == labels[m][test]).double().mean() for m in (0, 1)]
        accuracies.append(torch.stack(correct))
    return {name: p.detach() for name, p in parameters.items()}, torch.stack(losses), torch.stack(accuracies)


def _networks(inputs: list[Tensor], run: Run, sweep: Sweep) -> Parts:
    parts: Parts = {}

    def add_linear(part: str, m: int, features: int, width: int) -> None:
        parts[f"{part}s.{m}"] = seeded_module(lambda: nn.Linear(features, width), initial_seed(part, run.seed, m))

    for m in (0, 1):
        dim = width_of(sweep.encoders[m], inputs[m])
        parts[f"encoders.{m}"] = build_encoder(sweep.encoders[m], inputs[m], initial_seed("encoder", run.seed, m))
        add_linear("head", m, dim, 3)
        if sweep.projection.kind == "separate" or (sweep.projection.kind == "shared" and m == 0):
            assert sweep.projection.dim is not None
            add_linear("projection", m, dim, sweep.projection.dim)
    return parts


def _alignment_loss(parts: Parts, z: list[Tensor], sweep: Sweep) -> Tensor:
    projected = z
    if sweep.projection.kind != "none":
        names = {"separate": ("projections.0", "projections.1"), "shared": ("projections.0",) * 2}
        projected = [parts[name](z[m]) for m, name in enumerate(names[sweep.projection.kind])]
    a, b = (F.normalize(p, dim=-1) for p in projected)
    logits, pairs = a @ b.T / sweep.training.temperature, torch.arange(len(a))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _weight(run: Run, sweep: Sweep, tasks: list[Tensor], alignment: Tensor, *, z: list[Tensor]) -> float:
    """Return the weight of the alignment term: the strength, or that share of the task's gradient at the embeddings."""
    if sweep.strength_kind == "weight":
        return run.strength
    of_task, of_alignment = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, z, retain_graph=True)]).norm()
        for loss in (tasks[0] + tasks[1], alignment)
    )
    return float(run.strength * of_task / of_alignment)
