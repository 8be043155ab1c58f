"""The law of synthetic labels: which latent bits a label depends on, how, and the exact information that follows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from modalign.common.checks import whole_number
from modalign.common.names import suggestion
from modalign.information import Information, pid_of_joint

__all__ = ["Counts", "Features", "LabelLaw", "Sizes", "from_mapping"]

Array = NDArray[np.float64]
Settings = TypeVar("Settings")

MOST_LATENTS = 20  # the distribution is a table over all states of the latents
ROUNDS = 5000  # of weighting classes until they are equally probable; at temperature 0.05 ten are enough
MOST_FEATURES = 10  # the decomposition is of a table over the states of both modalities' used bits


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the synthetic data.

    Attributes:
        shared: Latent bits that both modalities see.
        unique: Latent bits that each modality alone sees.
        features: Features that make the label.
        classes: Classes of the label.

    Raises:
        TypeError: For a size that is not a whole number.
        ValueError: For a size out of range, or more than 20 latent bits in all.
    """

    shared: int = 8
    unique: int = 4
    features: int = 8
    classes: int = 4

    def __post_init__(self) -> None:
        for name, least, most in (("shared", 0, 20), ("unique", 0, 10), ("features", 1, 10), ("classes", 2, 32)):
            whole_number("synthetic: sizes", name, getattr(self, name), least=least, most=most)
        _require(self.width > 0, "sizes leave no latent bit to see, got shared = unique = 0")
        latents = self.shared + 2 * self.unique
        _require(latents <= MOST_LATENTS, f"sizes must make at most {MOST_LATENTS} latent bits, got {latents}")

    @property
    def width(self) -> int:
        """The latent bits that a modality sees."""
        return self.shared + self.unique


def from_mapping(kind: type[Settings], name: str, value: Settings | Mapping[str, int] | None) -> Settings:
    """Return settings as the dataclass ``kind``, from one, from a mapping of some of its fields, or from None."""
    if isinstance(value, kind):
        return value
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not isinstance(value, Mapping | None):
        raise TypeError(f"synthetic: {name} must be a mapping of {', '.join(fields)}, got {value!r}")
    for key in value or ():
        _require(key in fields, f"{name} takes {', '.join(fields)}, got {key!r}{suggestion(key, fields)}")
    return kind(**(value or {}))


@dataclasses.dataclass(frozen=True)
class Counts:
    """The number of label features of each kind."""

    redundancy: int
    unique_1: int
    unique_2: int
    synergy: int

    @classmethod
    def of(cls, sizes: Sizes, redundancy: int, unique_1: int | None, unique_2: int | None, *, synergy: int) -> Counts:
        """Return the counts, with those that are None filled in. Raises ValueError for a count out of range."""
        redundancy, synergy = (
            whole_number("synthetic", name, count) for name, count in (("redundancy", redundancy), ("synergy", synergy))
        )
        unique_1, unique_2 = (
            None if count is None else whole_number("synthetic", name, count)
            for name, count in (("unique_1", unique_1), ("unique_2", unique_2))
        )
        shared, unique, features = sizes.shared, sizes.unique, sizes.features
        _require(0 <= redundancy <= shared, f"redundancy must be from 0 to {shared}, got {redundancy}")
        _require(0 <= synergy <= unique, f"synergy must be from 0 to {unique}, got {synergy}")
        left = features - redundancy - synergy
        if unique_1 is None:
            unique_1 = left // 2 if unique_2 is None else left - unique_2
        if unique_2 is None:
            unique_2 = left - unique_1
        counts = cls(redundancy, unique_1, unique_2, synergy)
        _require(
            redundancy + unique_1 + unique_2 + synergy == features,
            f"redundancy + unique_1 + unique_2 + synergy must be {features}, got {counts.sum_text()}",
        )
        for name, value in (("unique_1", unique_1), ("unique_2", unique_2)):
            _require(0 <= value <= unique, f"{name} must be from 0 to {unique}, got {value} ({counts.sum_text()})")
        return counts

    def sum_text(self) -> str:
        parts = (self.redundancy, self.unique_1, self.unique_2, self.synergy)
        return f"{' + '.join(str(part) for part in parts)} = {sum(parts)}"


@dataclasses.dataclass(frozen=True)
class Features:
    """The latent bits that the label depends on."""

    shared: tuple[int, ...]
    unique_1: tuple[int, ...]
    unique_2: tuple[int, ...]
    synergy: tuple[tuple[int, int], ...] = ()  # (bit of modality 1, bit of modality 2)

    def used(self) -> tuple[list[int], list[int], list[int]]:
        """Return the used bits of the shared latents and of the unique latents of either modality."""
        return (
            sorted(self.shared),
            sorted({*self.unique_1, *(first for first, _ in self.synergy)}),
            sorted({*self.unique_2, *(second for _, second in self.synergy)}),
        )


@dataclasses.dataclass(frozen=True)
class LabelLaw:
    """p(label | latents), the softmax of W' f / temperature, reweighted until all classes are as likely within 0.01.

    Attributes:
        sizes: Sizes of the data.
        features: The latent bits that make f, in its order: shared, unique of modality 1 and 2, exclusive-ors.
        weight: W (features, classes), row after row.
        temperature: The divisor of the logits.
    """

    sizes: Sizes
    features: Features
    weight: tuple[float, ...]
    temperature: float

    @classmethod
    def of(cls, sizes: Sizes, features: Features, weight: Array, *, temperature: float) -> LabelLaw:
        """Return the law of a W (features, classes), whose rows are scaled to unit length."""
        unit = weight / np.linalg.norm(weight, axis=1, keepdims=True)
        return cls(sizes, features, tuple(unit.reshape(-1).tolist()), temperature)

    def of_latents(self) -> Array:
        """Return p(label | latents): (2,) * latents + (classes,), the latents as shared, unique 1, unique 2."""
        sizes, groups = self.sizes, self.features.used()
        starts = (0, sizes.shared, sizes.width)
        latents = [start + bit for start, group in zip(starts, groups, strict=True) for bit in group]
        count = sizes.shared + 2 * sizes.unique
        shape = [2 if bit in latents else 1 for bit in range(count)]
        p = _joint_of_used_bits(self).reshape(*shape, sizes.classes)
        return np.broadcast_to(p, (2,) * count + (sizes.classes,))

    def information(self) -> Information:
        """Return the exact decomposition, in bits."""
        return _information(self)


def _joint_of_used_bits(law: LabelLaw) -> Array:
    """p(label | used bits): (2^shared, 2^first, 2^second, classes), the first bit of each group most significant.

    The other latents are fair coins that the label ignores, so nothing is lost by leaving them out.
    """
    features, classes = law.features, law.sizes.classes
    groups = features.used()
    widths = [len(group) for group in groups]
    index = np.arange(1 << sum(widths))
    bits = (index[:, None] >> np.arange(sum(widths))[::-1]) & 1
    starts = np.cumsum([0, *widths])
    column = {(kind, bit): int(starts[kind]) + at for kind, group in enumerate(groups) for at, bit in enumerate(group)}
    columns = [bits[:, column[0, bit]] for bit in features.shared]
    columns += [bits[:, column[1, bit]] for bit in features.unique_1]
    columns += [bits[:, column[2, bit]] for bit in features.unique_2]
    columns += [bits[:, column[1, a]] ^ bits[:, column[2, b]] for a, b in features.synergy]
    with np.errstate(over="ignore", invalid="ignore"):  # at a temperature that is refused below
        logits = np.stack(columns, 1) @ np.array(law.weight).reshape(-1, classes) / law.temperature
        p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    for _ in range(ROUNDS):
        if np.abs(p.mean(0) - 1 / classes).max() <= 0.01:
            break
        if p.mean(0).all():
            p *= (1 / classes) / p.mean(0)
            p /= p.sum(1, keepdims=True)
    else:  # the label is nearly a function of the bits, whose values cannot be divided equally
        raise ValueError(
            "synthetic: the classes cannot be made equally probable at so small a temperature: take a larger one, such "
            f"as 0.01, got {law.temperature}"
        )
    shaped: Array = p.reshape(*(1 << width for width in widths), classes)
    return shaped


@functools.lru_cache(maxsize=256)
def _information(law: LabelLaw) -> Information:
    """Return the exact decomposition, from the states of the used bits: X1 = (shared, first), X2 = (shared, second)."""
    p = _joint_of_used_bits(law)
    shared, first, second, classes = p.shape
    joint = np.zeros((shared, first, shared, second, classes))
    state = np.arange(shared)
    joint[state, :, state] = p / (shared * first * second)
    return pid_of_joint(joint.reshape(shared * first, shared * second, classes))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"synthetic: {otherwise}")
