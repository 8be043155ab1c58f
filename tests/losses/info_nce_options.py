"""The options of ``info_nce`` that the tests of the loss and of its by-products share."""

from typing import Any

import torch
from torch import Tensor

N, D = 23, 9
GROUPS = torch.arange(N) % 17  # six groups of two
IGNORED = torch.arange(N) % 5 == 2


def more(kind: str, seed: int = 1) -> Tensor:
    shape = {"negatives": (N, 4, D), "queue": (11, D), "teacher": (2, N, 6)}[kind]
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "x_to_y": {"direction": "x_to_y"},
    "y_to_x": {"direction": "y_to_x"},
    "unnormalised": {"normalize": False, "temperature": 1.5},
    "temperature per anchor": {"temperature": torch.linspace(0.1, 1.0, N, dtype=torch.float64)},
    "own negatives": {"negatives": more("negatives")},
    "queue": {"queue": more("queue"), "direction": "x_to_y"},
    "negatives, queue, smoothing": {"negatives": more("negatives"), "queue": more("queue"), "label_smoothing": 0.3},
    "groups": {"groups": GROUPS},
    "groups, ignore": {"groups": GROUPS, "ignore": IGNORED},
    "SupCon out": {"groups": GROUPS, "positives": "out"},
    "SupCon out, smoothing": {"groups": GROUPS, "positives": "out", "label_smoothing": 0.1},
    "SupCon in": {"groups": GROUPS, "positives": "in"},
    "SupCon in, ignore": {"groups": GROUPS, "positives": "in", "ignore": IGNORED},
    "SupCon out, ignore, queue": {"groups": GROUPS, "positives": "out", "ignore": IGNORED, "queue": more("queue")},
    "one group": {"groups": torch.zeros(N, dtype=torch.int32)},
    "smoothing": {"label_smoothing": 0.2},
    "smoothing, groups, ignore": {"label_smoothing": 0.2, "groups": GROUPS, "ignore": IGNORED},
    "teacher": {"teacher": (*more("teacher"), 0.3)},
    "teacher, groups, smoothing": {"teacher": (*more("teacher"), 0.3), "groups": GROUPS, "label_smoothing": 0.1},
    "teacher, ignore, x_to_y": {"teacher": (*more("teacher"), 0.3), "ignore": IGNORED, "direction": "x_to_y"},
    "margin": {"margin": 0.05},
    "margin, negatives, queue": {"margin": -0.3, "negatives": more("negatives"), "queue": more("queue")},
    "margin, y_to_x, groups": {"margin": -0.1, "direction": "y_to_x", "groups": GROUPS},
    "weights": {"weights": torch.arange(N) % 3 / 2},
    "weights, ignore": {"weights": torch.arange(N) % 3 / 2, "ignore": IGNORED},
    "ignore": {"ignore": IGNORED},
}  # fmt: skip


def converted(value: Any, dtype: torch.dtype, device: str) -> Any:
    if isinstance(value, tuple):
        return tuple(converted(part, dtype, device) for part in value)
    if not isinstance(value, Tensor):
        return value
    return (value.to(dtype) if value.dtype == torch.float64 else value).to(device)
