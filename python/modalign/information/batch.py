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

__all__ = ["coupled"]

Array = NDArray[np.float64]
WIDTH, RANK = 32, 16
BATCH, STEPS, SCALINGS, MEASURED = 256, 300, 20, 20
LEARNING_RATE = 3e-3
FIT = 0.01  # total variation between marginals, up to which they count as the wanted ones


def coupled(
    x1: Array, x2: Array, items: NDArray[np.int64], resamples: int, confidence: float, most: float, seed: int
) -> tuple[Array, dict[str, tuple[float, float]], tuple[str, ...]]:
    """The parts of ``pid`` in bits, their intervals, and a note where the marginals of the coupling do not fit.

    items: (n, 4), the label and the clusters of ``pid`` for modality 1, 2 and both; most: log2(classes). What
    each modality tells is of their tables, and the marginals are p(y | cluster). The networks are trained on four
    fifths of the items; how much more than the better modality their coupling tells is measured on batches of the
    others. A coupling that is not the best tells too much, never too little: the intervals reach to the other end,
    where it tells no more than the better modality. O(BATCH^2 classes) memory.
    """
    told, draws = est._resampled(items, _mutuals, resamples, seed)
    more, off = _excess(x1, x2, items, seed)
    ends = [
        est._intervals(_parts(told, extra), np.array([_parts(draw, extra) for draw in draws]), confidence, most)
        for extra in (0.0, more)
    ]
    intervals = {name: (min(end[name][0] for end in ends), max(end[name][1] for end in ends)) for name in est.PARTS}
    notes = (
        f"the coupling's marginals are off by {off:.3f} (total variation; wanted: {FIT}): redundant, unique and "
        'synergistic parts are not those of the classifiers; take method="cvx"',
    )
    return _parts(told, more), intervals, notes if off > FIT else ()


def _mutuals(tables: list[Array], gap: float) -> Array:
    return np.array([est._mutual(table) / np.log(2) for table in tables])


def _parts(told: Array, more: float) -> Array:
    """In the order of ``pid``, where both modalities must tell so many bits more than the better one."""
    one, two, both = told
    least = max(one, two) + more
    return np.array([one + two - least, least - two, least - one, both - least, one, two, both])


def _excess(x1: Array, x2: Array, items: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """Bits that q tells more than the better modality, of held-out batches, and how far q's marginals are off."""
    fold = est._folds(items[:, 0], seed)
    trained, held = (torch.from_numpy(np.flatnonzero(some)) for some in (fold != 0, fold == 0))
    tables = est._counted(items, items.max(0) + 1)
    beliefs = [
        torch.from_numpy((table / table.sum(1, keepdims=True).clip(1)).clip(1e-6)[codes])
        for table, codes in zip(tables[:2], items.T[1:3], strict=True)
    ]
    inputs = [torch.from_numpy(est._scaled(x)) for x in (x1, x2)]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = [_network(x.shape[1], beliefs[0].shape[1]) for x in (x1, x2)]
    optimizer = torch.optim.Adam([p for network in networks for p in network.parameters()], lr=LEARNING_RATE)

    def batch(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:BATCH]]

    for _ in range(STEPS):
        loss = _information(_coupling(networks, inputs, beliefs, batch(trained), SCALINGS)[0])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = []
    with torch.no_grad():
        for _ in range(MEASURED):
            q, off = _coupling(networks, inputs, beliefs, batch(held), 10 * SCALINGS)
            one, two = (float(_information(q.sum(axis, keepdim=True))) for axis in (1, 0))
            found.append([max(float(_information(q)) - max(one, two), 0.0) / np.log(2), off])
    more, off = np.mean(found, 0)
    return float(more), float(off)


def _network(width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes * RANK))


def _coupling(
    networks: list[nn.Module], inputs: list[Tensor], beliefs: list[Tensor], rows: Tensor, scalings: int
) -> tuple[Tensor, float]:
    """q, (m, m, classes), summing to 1, and the total variation between its marginal of modality 1 and the wanted one;
    that of modality 2 is scaled last and fits."""
    f, g = (network(x[rows].float()).reshape(len(rows), -1, RANK) for network, x in zip(networks, inputs, strict=True))
    first, second = (belief[rows].float() / len(rows) for belief in beliefs)
    # both modalities must agree on how common a class is
    second = second * (first.sum(0) / second.sum(0))
    second, first = second / second.sum(), first / first.sum()
    log_q = torch.einsum("iyr,jyr->ijy", f, g) / RANK**0.5
    for _ in range(scalings):
        log_q = log_q + (first.log()[:, None] - log_q.logsumexp(1, keepdim=True))
        log_q = log_q + (second.log()[None] - log_q.logsumexp(0, keepdim=True))
    q: Tensor = log_q.exp()
    q = q / q.sum()
    return q, float((q.detach().sum(1) - first).abs().sum() / 2)


def _information(q: Tensor) -> Tensor:
    """I(X1, X2; Y) in nats of q(i, j, y)."""
    pair, label = q.sum(2, keepdim=True), q.sum((0, 1), keepdim=True)
    logs = [some.clamp(min=1e-30).log() for some in (q, pair, label)]
    return (q * (logs[0] - logs[1] - logs[2])).sum()
