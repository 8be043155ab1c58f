"""The neural estimator of Liang et al. 2023 (arXiv:2302.12247): a coupling of two modalities learned on mini-batches.

Of a batch of m items, q(i, j, y) couples modality 1 of item i with modality 2 of item j. Its marginals are those of two
classifiers, q(i, y) = p(y | x1_i) / m and q(j, y) = p(y | x2_j) / m; inside them, networks f and g with an output for
every class choose how to couple,

    q(i, j, y)  ~  exp(f_y(x1_i) . g_y(x2_j)),    scaled by rows and columns in turn (Sinkhorn) until the marginals fit,

and learn to make I_q(X1, X2; Y) least. What is left is what both modalities must tell together at least.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modalign.information import estimate as est

__all__ = ["least_mutual"]

Array = NDArray[np.float64]
WIDTH, RANK = 32, 16
BATCH, STEPS, SCALINGS = 256, 300, 20


def least_mutual(
    x1: Array, x2: Array, labels: NDArray[np.int64], *, folds: int, resamples: int, seed: int
) -> tuple[Array, Array]:
    """The parts of ``pid`` in bits, and those of bootstrap draws of held-out batches.

    Classifiers are those of ``pid``, out of fold. The networks are trained on four fifths of the items and the coupling
    is measured on batches of the others. O(BATCH^2 classes) memory.
    """
    fold = est._folds(labels, seed)
    said = [est._predictions(x, labels, fold, seed) for x in (x1, x2, est._together([x1, x2]))]
    trained, held = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    size = min(BATCH, len(held))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = [_network(x.shape[1], said[0].shape[1]) for x in (x1, x2)]
    inputs = [torch.from_numpy(est._scaled(x)).float() for x in (x1, x2)]
    beliefs = [torch.from_numpy(p).float() for p in said[:2]]
    optimizer = torch.optim.Adam([p for network in networks for p in network.parameters()], lr=3e-3)
    for _ in range(STEPS):
        rows = torch.from_numpy(trained)[torch.randperm(len(trained), generator=generator)[: min(BATCH, len(trained))]]
        loss = _information(_coupling(networks, inputs, beliefs, rows))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    joint = _joint(said[2], labels, seed)
    found = []
    with torch.no_grad():
        for _ in range(resamples):
            rows = torch.from_numpy(held)[torch.randperm(len(held), generator=generator)[:size]]
            q = _coupling(networks, [x.double() for x in inputs], [p.double() for p in beliefs], rows)
            least = float(_information(q))
            one, two = (float(_information(q.sum(axis, keepdim=True))) for axis in (1, 0))
            least = min(max(least, one, two), one + two)
            both = max(joint, least)
            found.append([one + two - least, least - two, least - one, both - least, one, two, both])
    draws = np.array(found) / np.log(2)
    # batches overlap: their spread over so many items, not the bias of a table
    value = draws.mean(0)
    share = np.sqrt(size / len(held))
    return value, value + share * (draws - value)


def _network(width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes * RANK))


def _coupling(networks: list[nn.Module], inputs: list[Tensor], beliefs: list[Tensor], rows: Tensor) -> Tensor:
    """(m, m, classes), summing to 1."""
    dtype = inputs[0].dtype
    f, g = (
        network.to(dtype)(x[rows]).reshape(len(rows), -1, RANK) for network, x in zip(networks, inputs, strict=True)
    )
    logits = torch.einsum("iyr,jyr->ijy", f, g) / RANK**0.5
    first, second = (belief[rows] / len(rows) for belief in beliefs)
    # both modalities must agree on how common a class is
    second = second * (first.sum(0) / second.sum(0))
    second = second / second.sum()
    first = first / first.sum()
    log_q = logits
    for _ in range(SCALINGS):
        log_q = log_q + (first.log()[:, None] - log_q.logsumexp(1, keepdim=True))
        log_q = log_q + (second.log()[None] - log_q.logsumexp(0, keepdim=True))
    q: Tensor = log_q.exp()
    return q / q.sum()


def _information(q: Tensor) -> Tensor:
    """I(X1, X2; Y) in nats of q(i, j, y)."""
    pair, label = q.sum(2, keepdim=True), q.sum((0, 1), keepdim=True)
    logs = [some.clamp(min=1e-30).log() for some in (q, pair, label)]
    return (q * (logs[0] - logs[1] - logs[2])).sum()


def _joint(said: Array, labels: NDArray[np.int64], seed: int) -> float:
    """I(X1, X2; Y) in nats, of clusters of what the classifier of both says, less the bias of so many cells."""
    codes = est._clustered(np.sqrt(said), min(3 * said.shape[1], 24), seed)
    table = np.zeros((int(codes.max()) + 1, said.shape[1]))
    np.add.at(table, (codes, labels), 1)
    bias = (len(table) - 1) * (said.shape[1] - 1) / (2 * len(labels))
    return float(max(0.0, est._mutual(table) - bias))
