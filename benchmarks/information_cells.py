"""Data whose decomposition of information is known exactly, for the coverage of the intervals of ``pid``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import norm

from modalign.data import synthetic
from modalign.information import Information, pid_of_joint
from modalign.information.inputs import FOLDS

Array = np.ndarray[Any, Any]
Sample = tuple[Array, Array, Array, Information]

BINS = 64  # of a normal coordinate, by which the exact parts of mixtures are computed: correct to .001 bits
GATES: dict[str, Callable[[Array, Array], Array]] = {
    "and": lambda a, b: a & b,
    "xor": lambda a, b: a ^ b,
    "unique": lambda a, b: a,
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """Data of one law: ``draw(seed)`` returns x1, x2, y and their exact information."""

    name: str
    draw: Callable[[int], Sample]


def hidden(code: Array, d: int, rng: np.random.Generator) -> Array:
    """Return (n, d) normal columns of which the sign of the first is a bit."""
    x = rng.normal(size=(len(code), d))
    x[:, 0] = np.abs(x[:, 0]) * (2 * code - 1)
    return x


def gate(name: str, n: int, d: int, flipped: float = 0.0) -> Callable[[int], Sample]:
    """Return a gate of the signs of one coordinate each, a share of whose labels is flipped."""
    joint = np.zeros((2, 2, 2))
    for a in (0, 1):
        for b in (0, 1):
            y = int(GATES[name](np.array(a), np.array(b)))
            joint[a, b, y] += (1 - flipped) / 4
            joint[a, b, 1 - y] += flipped / 4
    return from_joint(joint, n, lambda code, rng: hidden(code, d, rng))


def from_joint(joint: Array, n: int, show: Callable[[Array, np.random.Generator], Array]) -> Callable[[int], Sample]:
    """Return samples of codes and labels from a joint distribution, the codes shown as features."""
    exact = pid_of_joint(joint)

    def draw(seed: int) -> Sample:
        rng = np.random.default_rng(seed)
        while True:
            one, two, y = np.unravel_index(rng.choice(joint.size, n, p=joint.reshape(-1)), joint.shape)
            if np.bincount(y).min() >= FOLDS:  # pid refuses smaller classes
                break
        return show(one, rng), show(two, rng), y, exact

    return draw


def views(prior: Array, right_1: float, right_2: float) -> Array:
    """Return p(v1, v2, y) of two views of a label that hold it with some probability, and else any class."""
    classes = len(prior)
    channels = [right * np.eye(classes) + (1 - right) / classes for right in (right_1, right_2)]
    return np.asarray(np.einsum("y,yi,yj->ijy", prior, *channels))


def shared_bit(flipped: float) -> Array:
    """Return p(v1, v2, y) of one bit that both modalities see, and the label with some share flipped."""
    joint = np.zeros((2, 2, 2))
    for a in (0, 1):
        joint[a, a, a], joint[a, a, 1 - a] = (1 - flipped) / 2, flipped / 2
    return joint


def one_of(code: Array, rng: np.random.Generator) -> Array:
    """Return normal columns, one for each of ten codes, of which the code's is raised."""
    return 6.0 * np.eye(10)[code] + rng.normal(size=(len(code), 10))


def modes(n: int, d: int, apart: float, joint: Array) -> Callable[[int], Sample]:
    """Return modalities of two normal modes each, +-apart along one of d rotated axes, and a label by their modes.

    Args:
        n: The number of items.
        d: The number of features of a modality.
        apart: Half the distance of the modes, in standard deviations.
        joint: p(mode 1, mode 2, y).
    """
    edges = np.concatenate([[-np.inf], np.linspace(-apart - 3.5, apart + 3.5, BINS - 1), [np.inf]])
    seen = np.stack([np.diff(norm.cdf(edges - mean)) for mean in (-apart, apart)])  # p(bin | mode)
    exact = pid_of_joint(np.einsum("aby,ai,bj->ijy", joint, seen, seen))

    def show(code: Array, rng: np.random.Generator) -> Array:
        x = rng.normal(size=(len(code), d))
        x[:, 0] += apart * (2 * code - 1)
        return np.asarray(x @ np.linalg.qr(rng.normal(size=(d, d)))[0])

    codes = from_joint(joint, n, show)
    return lambda seed: (*codes(seed)[:3], exact)


def generated(redundancy: int, n: int, heterogeneity: int = 0) -> Callable[[int], Sample]:
    """Return the papers' synthetic data, whose label features and networks are drawn anew with the seed."""

    def draw(seed: int) -> Sample:
        data = synthetic(redundancy=redundancy, n=n, heterogeneity=heterogeneity, seed=seed)
        assert data.information is not None
        return data.x.double().numpy(), data.y.double().numpy(), data.labels.numpy(), data.information

    return draw


def cells() -> list[Cell]:
    """Return the cells of the table in docs/information.md: sixteen kinds of data, and four with few items."""
    both_modes = np.zeros((2, 2, 2))  # the label is 1 where both modalities are in their upper mode
    both_modes[0, 0, 0] = both_modes[0, 1, 0] = both_modes[1, 0, 0] = both_modes[1, 1, 1] = 0.25
    of_label = np.zeros((2, 2, 2))  # the modes are the label's
    of_label[0, 0, 0] = of_label[1, 1, 1] = 0.5
    return [
        Cell("and, d = 1, n = 2,000", gate("and", 2000, 1)),
        Cell("and, d = 8, n = 500", gate("and", 500, 8)),
        Cell("and, d = 64, n = 2,000", gate("and", 2000, 64)),
        Cell("and, 10 % flipped, d = 4, n = 20,000", gate("and", 20000, 4, 0.1)),
        Cell("xor, d = 1, n = 2,000", gate("xor", 2000, 1)),
        Cell("unique, 5 % flipped, d = 16, n = 1,000", gate("unique", 1000, 16, 0.05)),
        Cell(
            "one shared bit, 10 % flipped, d = 8, n = 300",
            from_joint(shared_bit(0.1), 300, lambda code, rng: hidden(code, 8, rng)),
        ),
        Cell("independent, d = 4, n = 300", gate("and", 300, 4, 0.5)),
        Cell("normal classes, d = 4, n = 1,000", modes(1000, 4, 0.8, of_label)),
        Cell("and of normal modes, d = 2, n = 2,048", modes(2048, 2, 2.0, both_modes)),
        Cell(
            "5 % of one class, d = 4, n = 2,000",
            from_joint(views(np.array([0.95, 0.05]), 0.8, 0.6), 2000, lambda code, rng: hidden(code, 4, rng)),
        ),
        Cell("10 classes, d = 10, n = 2,000", from_joint(views(np.full(10, 0.1), 0.7, 0.7), 2000, one_of)),
        Cell("generator, R = 0, n = 1,500", generated(0, 1500)),
        Cell("generator, R = 4, n = 1,500", generated(4, 1500)),
        Cell("generator, R = 8, n = 1,500", generated(8, 1500)),
        Cell("generator, R = 4, D = 3, n = 5,000", generated(4, 5000, 3)),
        *(
            Cell(f"{name}, d = 3, n = {n}", gate(name, n, 3))
            for name, n in (("xor", 20), ("xor", 40), ("and", 20), ("and", 100))
        ),
    ]
