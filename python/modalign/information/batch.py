"""The neural estimator of Liang et al. 2023 (arXiv:2302.12247): a coupling of two modalities learned on mini-batches.

In a batch of m items, q(i, j, y) couples modality 1 of item i with modality 2 of item j. Its marginals are those of two
classifiers, q(i, y) = p(y | x1_i) / m and q(j, y) = p(y | x2_j) / m; inside them, networks f and g with an output for
every class choose how to couple,

    q(i, j, y)  ~  exp(f_y(x1_i) . g_y(x2_j)),    scaled by rows and columns in turn (Sinkhorn) until the marginals fit,

and learn to make I_q(X1, X2; Y) least: the least that both modalities must tell together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modalign.information.inputs import Array, Codes, Side
from modalign.information.parts import PARTS
from modalign.information.predictions import fold_numbers, standardized
from modalign.information.tables import Resampled, count_tables, mutual_nats, resampled

__all__ = ["coupled"]

WIDTH, RANK = 32, 16
BATCH, STEPS, SCALINGS, MEASURED = 256, 300, 20, 20
LEARNING_RATE = 3e-3
FIT = 0.01  # total variation between marginals, up to which they count as equal


def coupled(
    sides: Sequence[Side], items: Codes, resamples: int, seed: int
) -> tuple[Resampled, list[Resampled], tuple[str, ...]]:
    """Estimate the parts of ``pid`` by a learned coupling.

    What each modality tells is that of its table, and the marginals are p(y | cluster). The networks are trained on
    four fifths of the items; how much more than the better modality their coupling tells is measured on batches of the
    others. A coupling that is not the best tells too much, never too little, so the intervals must reach to the other
    end, where it tells no more than the better modality. Memory is O(BATCH^2 classes).

    Args:
        sides: (n, d1) and (n, d2) features, or the class probabilities of a model, on which alone the parts depend.
        items: (n, 4), the label and the clusters of modality 1, modality 2 and both.
        resamples: The number of samples of the items.
        seed: Seed of samples, folds, networks and batches.

    Returns:
        The parts as ``resampled`` returns them; the same for each end of the intervals; and a note where the marginals
        of the coupling do not fit.
    """
    mutual = resampled(items, _mutual_bits, resamples, seed)
    excess, misfit = _excess(sides, items, seed)
    ends = [
        Resampled(
            _parts(mutual.estimate, bits),
            np.array([_parts(draw, bits) for draw in mutual.draws]),
            np.zeros(len(PARTS)),
            mutual.tables,
        )
        for bits in (0.0, excess)
    ]
    notes = (
        f"the coupling's marginals are off by {misfit:.3f} (total variation; wanted: {FIT}): redundant, unique and "
        'synergistic parts are not those of the classifiers; take method="cvx"',
    )
    return ends[1], ends, notes if misfit > FIT else ()


def _mutual_bits(tables: Sequence[Array], gap: float) -> Array:
    return np.array([mutual_nats(table) / np.log(2) for table in tables])


def _parts(mutual: Array, excess: float) -> Array:
    """Return the parts in the order of ``PARTS``, where both modalities must tell ``excess`` bits beyond the better."""
    one, two, both = mutual
    least = max(one, two) + excess
    return np.array([one + two - least, least - two, least - one, both - least, one, two, both])


@dataclasses.dataclass(frozen=True, eq=False)
class _Coupling:
    """The networks, what they see, and the marginals they must meet.

    Attributes:
        networks: f and g.
        inputs: (n, d1) and (n, d2) float64, standardised.
        beliefs: (n, classes) p(y | cluster) of modality 1 and of modality 2.
    """

    networks: list[nn.Module]
    inputs: list[Tensor]
    beliefs: list[Tensor]

    def batch(self, rows: Tensor, scalings: int) -> tuple[Tensor, float]:
        """Return q (m, m, classes) of some rows, summing to 1, and the misfit of its marginal of modality 1.

        The misfit is the total variation; the marginal of modality 2 is scaled last and fits.
        """
        f, g = (
            network(x[rows].float()).reshape(len(rows), -1, RANK)
            for network, x in zip(self.networks, self.inputs, strict=True)
        )
        first, second = (belief[rows].float() / len(rows) for belief in self.beliefs)
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


def _excess(sides: Sequence[Side], items: Codes, seed: int) -> tuple[float, float]:
    """Return the bits that q tells beyond the better modality on held-out batches, and the misfit of its marginals."""
    folds = fold_numbers(items[:, 0], seed)
    trained, held_out = (torch.from_numpy(np.flatnonzero(mask)) for mask in (folds != 0, folds == 0))
    tables = count_tables(items, items.max(0) + 1)
    beliefs = [
        torch.from_numpy((table / table.sum(1, keepdims=True).clip(1)).clip(1e-6)[codes])
        for table, codes in zip(tables[:2], items.T[1:3], strict=True)
    ]
    inputs = [torch.from_numpy(standardized(side)) for side in sides]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = [_network(x.shape[1], beliefs[0].shape[1]) for x in inputs]
    coupling = _Coupling(networks, inputs, beliefs)
    optimizer = torch.optim.Adam([p for network in networks for p in network.parameters()], lr=LEARNING_RATE)

    def draw(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:BATCH]]

    for _ in range(STEPS):
        loss = _information(coupling.batch(draw(trained), SCALINGS)[0])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    values = []
    with torch.no_grad():
        for _ in range(MEASURED):
            q, misfit = coupling.batch(draw(held_out), 10 * SCALINGS)
            one, two = (float(_information(q.sum(axis, keepdim=True))) for axis in (1, 0))
            values.append([max(float(_information(q)) - max(one, two), 0.0) / np.log(2), misfit])
    excess, misfit = np.mean(values, 0)
    return float(excess), float(misfit)


def _network(width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes * RANK))


def _information(q: Tensor) -> Tensor:
    """Return I(X1, X2; Y) of q(i, j, y) in nats."""
    pair, label = q.sum(2, keepdim=True), q.sum((0, 1), keepdim=True)
    log_q, log_pair, log_label = (values.clamp(min=1e-30).log() for values in (q, pair, label))
    return (q * (log_q - log_pair - log_label)).sum()
