"""The case of sweeps: one epoch of all runs side by side, beside one run after the other in plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.cases import Case
from modalign.data import PairedDataset, split_of, synthetic
from modalign.encoders import build_encoder, seeded_module
from modalign.experiments.sweep.config import parse
from modalign.experiments.sweep.randomness import batch_order, initial_seed, labelled_pairs
from modalign.experiments.sweep.training import Run, Trainer

STRENGTHS, SEEDS, BATCH, LABELS = [i / 5 for i in range(11)], range(6), 256, 1000  # the papers' grid, six seeds
RUNS = [Run(strength, seed) for strength in STRENGTHS for seed in SEEDS]


def sweep_cases() -> list[Case]:
    def make() -> tuple[Tensor, Tensor, Tensor]:
        data = synthetic(redundancy=4, n=20000, information=False)
        return data.x, data.y, data.labels[:, None]

    return [
        Case(
            f"{len(RUNS)} runs, an epoch of 14,000 pairs",
            make,
            {"modalign": _together, "one by one": _one_by_one, "one by one, DataLoader": _with_a_loader},
            agree=lambda a, b: bool(np.allclose(a, b, rtol=1e-3)),
            operations=0.0,
        )
    ]


def _data(x: Tensor, y: Tensor, labels: Tensor) -> PairedDataset:
    flat = labels[:, 0]
    return PairedDataset("bench", ("a", "b"), x, y=y, labels=flat, split=split_of(flat), classes=("0", "1", "2", "3"))


def _together(x: Tensor, y: Tensor, labels: Tensor) -> np.ndarray[Any, Any]:
    """Return the mean alignment loss of each run, trained in chunks on one core each, as in a sweep."""
    from concurrent.futures import ThreadPoolExecutor

    data = _data(x, y, labels)
    count = int((data.split == 0).sum())
    sweep = parse(
        {
            "name": "bench",
            "cases": [{"label": "a", "data": {"name": "synthetic"}}],
            "strengths": list(STRENGTHS),
            "encoders": {"kind": "mlp", "width": 12, "depth": 2, "dim": 12},
            "seeds": len(SEEDS),
            "training": {"epochs": 1, "batch_size": BATCH, "temperature": 0.2, "labels": min(LABELS, count)},
        }
    )

    def train(runs: list[Run]) -> Tensor:
        trainer = Trainer(data, runs, sweep)
        trainer.train_epoch()
        return trainer.curves[:, 0, trainer.columns.index("alignment_loss")]

    half = len(RUNS) // 2
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return torch.cat(list(pool.map(train, (RUNS[:half], RUNS[half:])))).numpy()


class _Pairs(Dataset[tuple[Tensor, ...]]):
    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        return tuple(tensor[i] for tensor in self.tensors)


def _one_by_one(x: Tensor, y: Tensor, labels: Tensor, loader: bool = False) -> np.ndarray[Any, Any]:
    """Return the same from a loop over runs as it is usually written, with the data in memory."""
    data = _data(x, y, labels).part(0)
    all_rows = _data(x, y, labels)
    results = []
    for run in RUNS:
        sides = (all_rows.x, all_rows.y)
        encoders = [
            build_encoder(_config(), side, initial_seed("encoder", run.seed, m)) for m, side in enumerate(sides)
        ]
        heads = [seeded_module(lambda: nn.Linear(12, 4), initial_seed("head", run.seed, m)) for m in (0, 1)]
        parameters = [p for module in (*encoders, *heads) for p in module.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=0.002, weight_decay=0.01)
        known = labelled_pairs(data.labels, min(LABELS, len(data)), run.seed)
        order, losses = batch_order(run.seed, 0, len(data)), []
        for a, b, label, labelled in _batches(data, known, order, loader):
            z = [encoder(side) for encoder, side in zip(encoders, (a, b), strict=True)]
            task = sum(
                F.cross_entropy(head(part)[labelled], label[labelled]) for head, part in zip(heads, z, strict=True)
            )
            u, v = (F.normalize(part, dim=1) for part in z)
            logits, pairs = u @ v.T / 0.2, torch.arange(len(u))
            alignment = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
            optimizer.zero_grad()
            (task + run.strength * alignment).backward()
            optimizer.step()
            losses.append(alignment.detach())
        with torch.no_grad():  # validation and test accuracies, which every epoch computes
            for part in (1, 2):
                held = all_rows.part(part)
                for encoder, head, side in zip(encoders, heads, (held.x, held.y), strict=True):
                    (head(encoder(side)).argmax(1) == held.labels).double().mean()
        results.append(float(torch.stack(losses).double().mean()))
    return np.array(results)


def _with_a_loader(x: Tensor, y: Tensor, labels: Tensor) -> np.ndarray[Any, Any]:
    return _one_by_one(x, y, labels, loader=True)


def _batches(data: PairedDataset, known: Tensor, order: Tensor, loader: bool) -> Iterator[tuple[Tensor, ...]]:
    batch = min(BATCH, len(data))
    tensors = (data.x, data.y, data.labels, known)
    if loader:
        yield from DataLoader(_Pairs(*tensors), batch_size=batch, sampler=order.tolist(), drop_last=True)
        return
    for start in range(0, len(order) - batch + 1, batch):
        rows = order[start : start + batch]
        yield tuple(tensor[rows] for tensor in tensors)


def _config() -> Any:
    from modalign.encoders import MLPConfig

    return MLPConfig(kind="mlp", width=12, depth=2, dim=12)
