"""Small paired data sets, configurations and comparisons for the tests of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from modalign.common.progress import Reporter
from modalign.data import PairedDataset
from modalign.experiments.sweep.config import Sweep, parse

TINY: dict[str, Any] = {
    "name": "tiny",
    "cases": [{"label": "R = 8", "data": {"name": "synthetic", "redundancy": 8, "n": 600}}],
    "encoders": {"kind": "mlp", "width": 7, "depth": 2, "dim": 5},
    "strengths": [0, 0.3, 2],
    "seeds": [3, 8],
    "training": {"epochs": 3, "batch_size": 64, "labels": 90},
    "metrics": {"k": 5},
}

TWO_CASES = [*TINY["cases"], {"label": "linear", "data": {**TINY["cases"][0]["data"], "heterogeneity": 0, "n": 500}}]


def settings(**changes: Any) -> dict[str, Any]:
    """TINY with other values; those of training and metrics are merged."""
    merged = {key: {**TINY[key], **changes.pop(key, {})} for key in ("training", "metrics")}
    return {**TINY, **merged, **changes}


def configuration(**changes: Any) -> Sweep:
    return parse(settings(**changes))


def vectors(n: int = 307, permuted: bool = False) -> PairedDataset:
    """Three noisy clusters seen twice; permuted: modality 2 of a third of the pairs is another item's."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 3, (n,), generator=generator)
    centres = torch.randn(2, 3, 6, generator=generator)
    x, y = (centre[labels] + torch.randn(n, 6, generator=generator) for centre in centres)
    partner = torch.arange(n)
    if permuted:
        partner[: n // 3] = partner[: n // 3].roll(1)
    return _dataset(x, y[partner], labels, labels[partner])


def images_and_texts(n: int = 90) -> PairedDataset:
    """uint8 images brighter, and sentences of other words, for each class."""
    generator = torch.Generator().manual_seed(6)
    labels = torch.randint(0, 3, (n,), generator=generator)
    pixels = torch.randint(0, 120, (n, 3, 8, 8), generator=generator) + 60 * labels[:, None, None, None]
    words = torch.randint(1, 5, (n, 4), generator=generator) + 4 * labels[:, None]
    words[:, 3] *= torch.randint(0, 2, (n,), generator=generator)
    return _dataset(pixels.to(torch.uint8), words, labels, labels)


def sequences_and_images(n: int = 90) -> PairedDataset:
    """Steps of features padded on the left, and float images, each with a mean that depends on the class."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 3, (n,), generator=generator)
    steps = torch.randn(n, 5, 4, generator=generator) + labels[:, None, None]
    padding = torch.randint(0, 6, (n,), generator=generator)  # a sixth of the rows is padding alone
    steps[torch.arange(5) < padding[:, None]] = 0
    images = torch.randn(n, 2, 8, 4, generator=generator) - labels[:, None, None, None]
    return _dataset(steps, images, labels, labels)


def hidden_numbers(task: str, n: int = 300, modalities: int = 2) -> PairedDataset:
    """Modalities that see the same three numbers through noise; labels follow from the first two."""
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(n, 3, generator=generator)
    views = [hidden + 0.3 * torch.randn(n, 3, generator=generator) for _ in range(modalities)]
    labels = {
        "classification": (hidden[:, 0] > 0).long() + (hidden[:, 1] > 0).long(),
        "regression": hidden[:, 0],
        "multilabel": (hidden[:, :2] > 0).float(),
    }[task]
    return PairedDataset(
        name="hidden",
        modalities=tuple(f"view {m + 1}" for m in range(modalities)),
        x=views[0],
        y=views[1],
        more=tuple(views[2:]),
        labels=labels,
        split=torch.tensor([0, 0, 0, 1, 2], dtype=torch.int8)[torch.arange(n) % 5],
        classes=("none", "one", "both")[: {"classification": 3, "regression": 0, "multilabel": 2}[task]],
        task=task,
    )


def _dataset(x: torch.Tensor, y: torch.Tensor, labels: torch.Tensor, labels_y: torch.Tensor) -> PairedDataset:
    split = torch.tensor([0, 0, 0, 1, 2], dtype=torch.int8)[torch.arange(len(x)) % 5]
    return PairedDataset(
        name="small",
        modalities=("left", "right"),
        x=x,
        y=y,
        labels=labels,
        labels_y=labels_y,
        split=split,
        classes=("a", "b", "c"),
        settings={},
    )


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_parquet(folder / "runs.parquet").drop(columns="seconds"), pd.read_parquet(folder / "curves.parquet")


def assert_same_bits(one: Path, other: Path) -> None:
    for a, b in zip(tables(one), tables(other), strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)


class Impatient(Reporter):
    """Stops the sweep in its second half, between two checkpoints, as Ctrl-C would."""

    def __init__(self) -> None:
        super().__init__("none")

    def advance(self, work: int, *, resumed: bool = False) -> None:
        super().advance(work, resumed=resumed)
        if self.done > 0.7 * self.total:
            raise KeyboardInterrupt
