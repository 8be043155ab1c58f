"""Whether alignment, or prediction of one modality from the other, recovers what two modalities share.

The spiked linear model of *When to Align, When to Predict* (arXiv:2606.11190): both modalities hold a shared signal of
strengths kappa_i among noise of variances gamma, and nuisance that is correlated across them with strengths eta_j.

    alignment    rho_i = kappa_i^2 / sqrt((kappa_i^2 + gamma_x) (kappa_i^2 + gamma_y))
                 nu_j = eta_j / sqrt(gamma_xj gamma_yj)
    prediction   tau_i = kappa_i^2 / sqrt(kappa_i^2 + gamma_x)
                 xi_j = eta_j / sqrt(gamma_xj)

Each recovers the signal where the smallest of its signal's values exceeds the largest of its nuisance's. A small
labelled sample tells signal from nuisance: the signal is what the means of the classes share, nuisance what the
deviations from them do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Regime", "regime"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regime:
    """name: "both", "align only", "predict only" or "neither": what recovers the shared signal. rho, nu: alignment's
    values of signal and nuisance; tau, xi: prediction's."""

    name: str
    rho: tuple[float, ...]
    nu: tuple[float, ...]
    tau: tuple[float, ...]
    xi: tuple[float, ...]

    @property
    def aligns(self) -> bool:
        return self.name in ("both", "align only")

    @property
    def predicts(self) -> bool:
        return self.name in ("both", "predict only")


def regime(x1: Any, x2: Any, y: Any, *, components: int = 10, seed: int = 0) -> Regime:
    """The regime of modality 1, from which prediction goes, and modality 2.

    Args:
        x1, x2: (n, d1), (n, d2) numbers of the same n items, each centred and scaled as a whole. y: (n,) classes.
        components: principal directions of each modality that are looked at, at most a fifth of the items.
        seed: of the halves: directions are found on one half of the items and measured on the other, and the other way
            round, since a direction that was chosen on a sample looks better there than it is.

    Returns: ``Regime``; the signal has at most classes - 1 directions, with a tenth of the largest value at least.
    O(n d^2) time, O(d^2) memory beside the inputs.
    Raises ValueError as ``pid``, and where the classes' means share nothing.
    Source: arXiv:2606.11190.

    Examples:
        >>> import numpy as np
        >>> from modalign.information import regime
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 2000)
        >>> x = 2 * y[:, None] * np.ones(4) + rng.normal(size=(2000, 4))
        >>> regime(x, x + rng.normal(size=(2000, 4)) - rng.normal(size=(2000, 4)), y).name
        'both'
    """
    from modalign.information.estimate import _features, _labels

    labels = _labels("regime", y)
    tables = []
    for name, values in (("x1", x1), ("x2", x2)):
        table = np.asarray(_features("regime", name, values, len(labels)), np.float64)
        tables.append(_reduced(table.reshape(len(table), -1), max(1, min(components, len(table) // 5))))
    x, z = tables
    classes = int(labels.max()) + 1
    means = [np.stack([side[labels == label].mean(0) for label in range(classes)])[labels] for side in tables]
    within = [side - mean for side, mean in zip(tables, means, strict=True)]
    order = np.random.default_rng(seed).permutation(len(labels))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    signal: list[tuple[Array, Array]] = []
    nuisance: list[tuple[Array, Array]] = []
    for found, measured in (halves, halves[::-1]):
        own = [_class_means(side, labels, found, classes) for side in tables]
        u, _, v = np.linalg.svd(own[0][labels[found]].T @ own[1][labels[found]], full_matrices=False)
        count = min(classes - 1, u.shape[1])
        other = [_class_means(side, labels, measured, classes)[labels[measured]] for side in tables]
        shared = np.array([((other[0] @ u[:, i]) * (other[1] @ v[i])).mean() for i in range(count)])
        spread = [np.array([(side[measured] @ w).var() for w in ws[:count]]) for side, ws in ((x, u.T), (z, v))]
        signal.append((shared / np.sqrt(spread[0] * spread[1]), shared / np.sqrt(spread[0])))
        # nuisance: canonical directions of the deviations
        u, v = _canonical(within[0][found], within[1][found])
        a, b = within[0][measured] @ u, within[1][measured] @ v
        common = (a * b).mean(0)
        nuisance.append((common / np.sqrt(a.var(0) * b.var(0)), common / a.std(0)))
    rho, tau = (np.mean([part[i] for part in signal], 0) for i in (0, 1))
    nu, xi = (np.abs(np.mean([part[i] for part in nuisance], 0)) for i in (0, 1))
    kept = rho >= 0.1 * max(rho.max(), 0)
    if rho.max() <= 0:
        raise ValueError("regime: the means of the classes share nothing: there is no signal to recover")
    aligns = bool(rho[kept].min() > nu.max(initial=0.0))
    predicts = bool(tau[kept].min() > xi.max(initial=0.0))
    name = {(1, 1): "both", (1, 0): "align only", (0, 1): "predict only", (0, 0): "neither"}[aligns, predicts]
    numbers = [tuple(float(value) for value in values) for values in (rho[kept], nu, tau[kept], xi)]
    return Regime(name, *numbers)


def _reduced(table: Array, components: int) -> Array:
    """Centred, scaled as a whole, on its leading principal directions."""
    centred = table - table.mean(0)
    centred /= np.sqrt(centred.var(0).mean()) or 1.0
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :components]
    return np.asarray(centred @ axes)


def _class_means(side: Array, labels: Any, rows: Any, classes: int) -> Array:
    """(classes, d), centred on the mean of the rows; a class without rows has the mean."""
    part, of = side[rows], labels[rows]
    whole = part.mean(0)
    return np.stack(
        [part[of == label].mean(0) - whole if (of == label).any() else 0 * whole for label in range(classes)]
    )


def _canonical(a: Array, b: Array) -> tuple[Array, Array]:
    """Canonical directions of centred rows, of unit length."""
    roots = []
    for side in (a, b):
        values, vectors = np.linalg.eigh(side.T @ side / len(side))
        roots.append(vectors / np.sqrt(values.clip(values.max() * 1e-6)) @ vectors.T)
    u, _, v = np.linalg.svd(roots[0] @ (a.T @ b / len(a)) @ roots[1], full_matrices=False)
    first, second = roots[0] @ u, roots[1] @ v.T
    return first / np.linalg.norm(first, axis=0), second / np.linalg.norm(second, axis=0)
