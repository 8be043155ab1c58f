"""Whether alignment, or prediction of one modality from the other, recovers what two modalities share.

In the spiked linear model of *When to Align, When to Predict* (arXiv:2606.11190), both modalities hold a shared signal
of strengths kappa_i among noise of variances gamma, and nuisance that is correlated across them with strengths eta_j.

    alignment    rho_i = kappa_i^2 / sqrt((kappa_i^2 + gamma_x) (kappa_i^2 + gamma_y))
                 nu_j = eta_j / sqrt(gamma_xj gamma_yj)
    prediction   tau_i = kappa_i^2 / sqrt(kappa_i^2 + gamma_x)
                 xi_j = eta_j / sqrt(gamma_xj)

Each recovers the signal where the smallest of its signal's values exceeds the largest of its nuisance's. A small
labelled sample separates signal from nuisance: the signal is what the means of the classes share, nuisance what the
deviations from them share.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from modalign.common.checks import LARGEST_SEED, whole_number
from modalign.common.labels import Labels
from modalign.information.inputs import Array, Codes, checked_features, checked_labels

__all__ = ["Regime", "regime"]


@dataclasses.dataclass(frozen=True)
class Regime:
    """The methods that recover the signal that two modalities share.

    Attributes:
        name: "both", "align only", "predict only" or "neither".
        rho: Alignment's values of the signal.
        nu: Alignment's values of the nuisance.
        tau: Prediction's values of the signal.
        xi: Prediction's values of the nuisance.
    """

    name: str
    rho: tuple[float, ...]
    nu: tuple[float, ...]
    tau: tuple[float, ...]
    xi: tuple[float, ...]

    @property
    def aligns(self) -> bool:
        """Whether alignment recovers the signal."""
        return self.name in ("both", "align only")

    @property
    def predicts(self) -> bool:
        """Whether prediction of modality 2 from modality 1 recovers the signal."""
        return self.name in ("both", "predict only")


def regime(x1: ArrayLike, x2: ArrayLike, y: Labels, *, components: int = 10, seed: int = 0) -> Regime:
    """Estimate which of alignment and prediction would recover the shared signal, from a labelled sample.

    Directions are chosen on one half of the items and measured on the other, and the other way round, because a
    direction that was chosen on a sample looks better there than it is.

    Args:
        x1: (n, d1) numbers, modality 1, from which prediction goes; centred and scaled as a whole.
        x2: (n, d2) numbers of the same items, modality 2.
        y: (n,) the classes, as ``pid`` takes them.
        components: The number of principal directions of each modality to use, at most a fifth of the items.
        seed: Seed of the halves.

    Returns:
        The regime. The signal has at most classes - 1 directions, each with at least a tenth of the largest value. Time
        is O(n d^2), memory O(d^2) beside the inputs.

    Raises:
        ValueError: As ``pid``, and where the means of the classes share nothing.

    Source:
        arXiv:2606.11190.

    Examples:
        >>> import numpy as np
        >>> from modalign.information import regime
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 2000)
        >>> x = 2 * y[:, None] * np.ones(4) + rng.normal(size=(2000, 4))
        >>> regime(x, x + rng.normal(size=(2000, 4)) - rng.normal(size=(2000, 4)), y).name
        'both'
    """
    components = whole_number("regime", "components", components, least=1)
    seed = whole_number("regime", "seed", seed, least=0, most=LARGEST_SEED)
    labels = checked_labels("regime", y)
    tables = []
    for name, values in (("x1", x1), ("x2", x2)):
        table = np.asarray(checked_features("regime", name, values, len(labels)), np.float64)
        tables.append(_principal(table.reshape(len(table), -1), max(1, min(components, len(table) // 5))))
    sample = _Sample(tables[0], tables[1], labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    signal = [sample.signal(chosen, measured) for chosen, measured in (halves, halves[::-1])]
    nuisance = [sample.nuisance(chosen, measured) for chosen, measured in (halves, halves[::-1])]
    rho, tau = (np.mean([half[i] for half in signal], 0) for i in (0, 1))
    nu, xi = (np.abs(np.mean([half[i] for half in nuisance], 0)) for i in (0, 1))
    if rho.max() <= 0:
        raise ValueError("regime: the means of the classes share nothing: there is no signal to recover")
    kept = rho >= 0.1 * rho.max()
    aligns = bool(rho[kept].min() > nu.max(initial=0.0))
    predicts = bool(tau[kept].min() > xi.max(initial=0.0))
    name = {(1, 1): "both", (1, 0): "align only", (0, 1): "predict only", (0, 0): "neither"}[aligns, predicts]
    rho, nu, tau, xi = (tuple(map(float, values)) for values in (rho[kept], nu, tau[kept], xi))
    return Regime(name, rho=rho, nu=nu, tau=tau, xi=xi)


@dataclasses.dataclass(frozen=True, eq=False)
class _Sample:
    """Two modalities on their principal directions, and the classes of the items.

    Attributes:
        x: (n, d1) float64.
        z: (n, d2) float64.
        labels: (n,) classes from 0.
    """

    x: Array
    z: Array
    labels: Codes

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def signal(self, chosen: Codes, measured: Codes) -> tuple[Array, Array]:
        """Return alignment's and prediction's values of the directions that the means of the classes share.

        Args:
            chosen: The items on which the directions are chosen.
            measured: The items on which their values are measured.
        """
        tables, labels = (self.x, self.z), self.labels
        means = [_class_means(table, labels, chosen, self.classes)[labels[chosen]] for table in tables]
        u, _, v = np.linalg.svd(means[0].T @ means[1], full_matrices=False)
        count = min(self.classes - 1, u.shape[1])
        means = [_class_means(table, labels, measured, self.classes)[labels[measured]] for table in tables]
        shared = np.array([((means[0] @ u[:, i]) * (means[1] @ v[i])).mean() for i in range(count)])
        of_x, of_z = (
            np.array([(table[measured] @ direction).var() for direction in directions[:count]])
            for table, directions in ((self.x, u.T), (self.z, v))
        )
        return shared / np.sqrt(of_x * of_z), shared / np.sqrt(of_x)

    def nuisance(self, chosen: Codes, measured: Codes) -> tuple[Array, Array]:
        """Return the values of the canonical directions of the deviations from the means; arguments as ``signal``."""
        means = [
            np.stack([table[self.labels == label].mean(0) for label in range(self.classes)])[self.labels]
            for table in (self.x, self.z)
        ]
        x, z = self.x - means[0], self.z - means[1]
        u, v = _canonical(x[chosen], z[chosen])
        a, b = x[measured] @ u, z[measured] @ v
        shared = (a * b).mean(0)
        return shared / np.sqrt(a.var(0) * b.var(0)), shared / a.std(0)


def _principal(table: Array, components: int) -> Array:
    """Return the rows centred, scaled as a whole, and projected on their leading principal directions."""
    centred = table - table.mean(0)
    centred /= np.sqrt(centred.var(0).mean()) or 1.0
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :components]
    return np.asarray(centred @ axes)


def _class_means(table: Array, labels: Codes, rows: Codes, classes: int) -> Array:
    """Return the means of classes over some rows less the mean of these rows, (classes, d); 0 for empty classes."""
    part, part_labels = table[rows], labels[rows]
    whole = part.mean(0)
    return np.stack(
        [
            part[part_labels == label].mean(0) - whole if (part_labels == label).any() else 0 * whole
            for label in range(classes)
        ]
    )


def _canonical(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the canonical directions of centred rows, of unit length."""
    roots = []
    for side in (a, b):
        values, vectors = np.linalg.eigh(side.T @ side / len(side))
        roots.append(vectors / np.sqrt(values.clip(values.max() * 1e-6)) @ vectors.T)
    u, _, v = np.linalg.svd(roots[0] @ (a.T @ b / len(a)) @ roots[1], full_matrices=False)
    first, second = roots[0] @ u, roots[1] @ v.T
    return first / np.linalg.norm(first, axis=0), second / np.linalg.norm(second, axis=0)
