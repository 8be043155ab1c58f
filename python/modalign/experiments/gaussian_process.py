"""Gaussian-process model of the change of accuracy over strength 0, averaged over its hyperparameters.

The input is t = asinh(strength / 0.05), the output a curve f that is 0 at t = 0. The change of run k of seed s is
f(t_k) + e_sk - e_s0 with e of variance v: all changes of a seed subtract the same run, so they share its noise, and
their covariance is v off the diagonal and 2 v on it. f is Gaussian with covariance ratio v K_length, conditioned on
f(0) = 0, where K_length is the squared exponential kernel. Prior: every length and ratio of a grid is as probable as
any other, and v has density 1 / v. With M = ratio K + N the covariance of the n changes y is v M, so the evidence of a
length and ratio is |M|^(-1/2) (y' M^-1 y)^(-n/2), v is y' M^-1 y over a chi-square of n degrees of freedom, and f is
Gaussian given all three. scikit-learn's GaussianProcessRegressor has neither the shared noise nor the average over
hyperparameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCALE", "Changes", "Posterior", "position", "posterior", "strength_at"]

SCALE = 0.05  # strengths below it are nearly 0
POINTS, FUNCTIONS = 121, 2000  # places of a curve, and functions drawn from the posterior
LENGTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)  # of the kernel, as shares of the range of t
RATIOS = tuple(10 ** (i / 2) for i in range(-2, 7))  # of the curve's variance to that of a run's noise
NOISE_FLOOR = 1e-4  # of an accuracy: noise is at least this, though all runs agree
Array = NDArray[np.float64]


def position(strength: float) -> float:
    """Return t = asinh(strength / 0.05), whose even steps are even steps near 0 and even ratios far from it."""
    return float(np.arcsinh(strength / SCALE))


def strength_at(t: float) -> float:
    """Return the strength at t, rounded to three digits."""
    return float(f"{float(SCALE * np.sinh(t)):.3g}")


@dataclass(frozen=True)
class Changes:
    """Changes of accuracy over strength 0 with the same seed.

    Args:
        strengths: (n,) positive strengths.
        seeds: (n,) seeds of the runs.
        values: (n,) changes.
    """

    strengths: Array
    seeds: NDArray[np.int64]
    values: Array


@dataclass(frozen=True)
class Posterior:
    """Distribution of the curve given the changes.

    Args:
        places: (points,) values of t from 0 to that of the largest strength.
        functions: (functions, points) curves drawn from the posterior, in random order.
        mean: (points,) mean of the posterior.
    """

    places: Array
    functions: Array
    mean: Array

    @property
    def strengths(self) -> Array:
        """(points,) strengths at the places."""
        strengths: Array = SCALE * np.sinh(self.places)
        return strengths

    @property
    def deviation(self) -> Array:
        """(points,) standard deviation of the drawn functions."""
        deviation: Array = self.functions.std(0)
        return deviation


def posterior(changes: Changes, highest: float, seed: int) -> Posterior:
    """Compute the posterior of the curve from strength 0 to ``highest``.

    Args:
        changes: The changes seen.
        highest: The largest strength.
        seed: Seed of the functions that are drawn.
    """
    noise = np.eye(len(changes.values)) + (changes.seeds[:, None] == changes.seeds)
    places = np.linspace(0, position(highest), POINTS)
    every_place = np.concatenate([places, [position(strength) for strength in changes.strengths]])
    bases = [_basis(every_place, length * position(highest)) for length in LENGTHS]
    fits = [_Fit.of(np.sqrt(ratio) * basis, noise, changes.values) for basis in bases for ratio in RATIOS]
    evidence = np.array([fit.evidence for fit in fits])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    rng = np.random.default_rng(seed)
    drawn = [fit.draw(count, rng) for fit, count in zip(fits, rng.multinomial(FUNCTIONS, weights), strict=True)]
    functions = rng.permutation(np.concatenate(drawn))
    return Posterior(places, functions, weights @ np.array([fit.mean for fit in fits]))


def _basis(places: Array, length: float) -> Array:
    """Return B (places, functions): B w with w standard normal is a smooth random function that is 0 at 0."""
    kernel = np.exp(-((places[:, None] - places) ** 2) / (2 * length**2))
    with_zero = np.exp(-(places**2) / (2 * length**2))
    eigenvalues, vectors = np.linalg.eigh(kernel - with_zero[:, None] * with_zero)
    kept = eigenvalues > 1e-9 * eigenvalues[-1]
    basis: Array = vectors[:, kept] * np.sqrt(eigenvalues[kept])
    return basis


@dataclass(frozen=True)
class _Fit:
    """The posterior for one length and ratio: given v, the curve is basis @ (centre + sqrt(v) root @ normal).

    Args:
        basis: (POINTS, functions) basis over the places.
        centre: (functions,) mean of the weights.
        root: (functions, functions) root of the weights' covariance over v.
        scatter: y' M^-1 y, which is v times a chi-square.
        count: Number of changes.
        evidence: Logarithm of the evidence.
    """

    basis: Array
    centre: Array
    root: Array
    scatter: float
    count: int
    evidence: float

    @classmethod
    def of(cls, basis: Array, noise: Array, values: Array) -> _Fit:
        """Fit a basis over the places and then the changes (POINTS + n, functions)."""
        n, observed = len(values), basis[POINTS:]
        covariance = observed @ observed.T + noise
        solved = np.linalg.solve(covariance, np.concatenate([values[:, None], observed], 1))
        scatter = float(values @ solved[:, 0]) + n * NOISE_FLOOR**2
        eigenvalues, vectors = np.linalg.eigh(np.eye(basis.shape[1]) - observed.T @ solved[:, 1:])
        evidence = -(np.linalg.slogdet(covariance)[1] + n * np.log(scatter)) / 2
        return cls(
            basis=basis[:POINTS],
            centre=observed.T @ solved[:, 0],
            root=vectors * np.sqrt(eigenvalues.clip(0)),
            scatter=scatter,
            count=n,
            evidence=float(evidence),
        )

    @property
    def mean(self) -> Array:
        """(POINTS,) mean of the curve."""
        curve: Array = self.basis @ self.centre
        return curve

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Draw ``count`` curves (count, POINTS)."""
        deviations = np.sqrt(self.scatter / rng.chisquare(self.count, (count, 1)))
        normal = rng.normal(size=(count, len(self.centre)))
        curves: Array = (self.centre + deviations * (normal @ self.root.T)) @ self.basis.T
        return curves
