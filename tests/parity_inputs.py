"""The made-up rows and joint distributions of docs/parity.md, from numpy's legacy generator, whose stream is fixed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["INPUTS", "LABELS", "TABLES", "Array", "Pair"]

Array = NDArray[np.float64]
Pair = tuple[Array, Array]


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def drawn(seed: int, n: int, d_x: int, d_y: int, *, latents: int = 6, layers: int = 1) -> Pair:
    """Return two representations that share latent numbers, (n, d) or (n, layers, d) if there are several layers."""
    rng = np.random.RandomState(seed)
    z = rng.standard_normal((n, latents))
    x, y = [], []
    for _ in range(layers):
        x.append(z @ rng.standard_normal((latents, d_x)) + rng.standard_normal((n, d_x)))
        y.append(np.tanh(z @ rng.standard_normal((latents, d_y))) + rng.standard_normal((n, d_y)) / 2)
    return (x[0], y[0]) if layers == 1 else (np.stack(x, axis=1), np.stack(y, axis=1))


def loud(rows: Array) -> Array:
    """Return the rows with one feature in twelve 50 times as large, as layers of language models have some."""
    factors = np.ones(rows.shape[-1])
    factors[::12] = 50
    return rows * factors


def mixture_table() -> Array:
    """Return a joint distribution of 20 x 20 codes and two classes, as clusters of features have it."""
    rng = np.random.RandomState(3)
    centres = rng.standard_normal((2, 20, 1))
    score = centres[0] + centres[1].T
    p_class = 1 / (1 + np.exp(-2 * score - rng.standard_normal((20, 20))))
    p_codes = rng.dirichlet(np.full(400, 0.5)).reshape(20, 20)
    return np.stack([p_codes * (1 - p_class), p_codes * p_class], axis=2)


def gate(rule: Callable[[int, int], int]) -> Array:
    p = np.zeros((2, 2, 2))
    for i in (0, 1):
        for j in (0, 1):
            p[i, j, rule(i, j)] = 0.25
    return p


def signs() -> Pair:
    """Return independent representations of three signs: 400 rows, of which eight are distinct."""
    x, y = np.random.RandomState(5).randint(0, 2, (2, 400, 3)) * 2.0 - 1
    return x / np.sqrt(3), y / np.sqrt(3)


RAW, WIDE, LAYERS = drawn(0, 200, 24, 16), drawn(1, 64, 1024, 512), drawn(2, 120, 24, 16, layers=4)
INPUTS: dict[str, Pair] = {
    "unit rows": (unit(RAW[0]), unit(RAW[1])),
    "far mean": (unit(RAW[0] + 12), unit(RAW[1] + 12)),
    "wide rows": (unit(WIDE[0]), unit(WIDE[1])),
    "loud rows": (loud(RAW[0]), loud(RAW[1])),
    "layers": (loud(LAYERS[0]), loud(LAYERS[1][:, :3])),
    "flat spectrum": drawn(4, 500, 96, 96, latents=48),
    "repeated rows": signs(),
    "equal widths": (unit(RAW[0])[:, :16], unit(RAW[1])),
}
# labels and predictions of a regression; three labels are 0
LABELS = {"five labels": np.array([[0, 0, 0, 1, -1], [-0.1, -0.2, 0.3, 0.5, -0.5]])}
TABLES: dict[str, Array] = {
    "AND": gate(lambda i, j: i & j),
    "XOR": gate(lambda i, j: i ^ j),
    "x1": gate(lambda i, j: i),
    "20 x 20 codes": mixture_table(),
}
