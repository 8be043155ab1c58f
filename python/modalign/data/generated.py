"""Synthetic pairs with a chosen amount of redundant, unique and synergistic information about the label.

The setting of Tjandrasuwita et al. 2025 (arXiv:2502.16282) and Fang et al. 2026 (arXiv:2511.12121). Every probability
is known, so the mutual informations and the partial information decomposition come with the data, exact.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.data.arrays import require_one_of
from modalign.data.paired import TRAIN, PairedDataset, split_of
from modalign.information import Information, pid_of_joint

__all__ = ["synthetic"]

Array = NDArray[np.float64]

SHARED, UNIQUE = 8, 4  # latent bits: both modalities see the shared ones, each has unique ones of its own
FEATURES = 8  # the number of latent features that make the label
CLASSES = 4
WIDTH = SHARED + UNIQUE
VARIANTS = ("uni", "multi", "width")


def synthetic(
    *,
    redundancy: int = 4,
    unique_1: int | None = None,
    unique_2: int | None = None,
    synergy: int = 0,
    n: int = 65536,
    heterogeneity: int = 3,
    variant: str = "uni",
    temperature: float = 0.05,
    seed: int = 0,
    information: bool = True,
) -> PairedDataset:
    """Generate pairs of 12 features each, with a label of 4 classes that depends on 8 features of their latents.

    Latents are fair coins: 8 shared, 4 in modality 1 only, 4 in modality 2 only. Label features are ``redundancy`` of
    the shared, ``unique_1`` and ``unique_2`` of the unique ones, and ``synergy`` exclusive-ors of a unique bit of
    modality 1 with one of modality 2 (bits that are no label feature on their own, as long as any are left). With f in
    {0, 1}^8 and W of shape (8, 4), uniform on (0, 1), each row scaled to unit length,

        p(label | latents)  ~  softmax(W' f / temperature),   reweighted until every class has probability 1/4 +- 0.01

    Modality 1 is its 12 bits. Modality 2 is its 12 bits through Linear(12, 12) and ``heterogeneity`` times
    (tanh, Linear(12, 12)), weights and biases uniform on +-1/sqrt(12). Both are standardised by the training split.

    Args:
        redundancy, unique_1, unique_2, synergy: numbers of label features, 8 together; redundancy and the default
            unique_1 = (8 - redundancy - synergy) // 2, unique_2 = the rest. At most 8, 4, 4 and 4.
        n: pairs.
        heterogeneity: depth of the transform of modality 2, >= 0.
        variant: "uni" as above; "multi" puts modality 1 behind a network of the same depth; "width" gives modality 2
            one hidden layer of 12 * heterogeneity^2 units in place of depth.
        temperature: > 0; larger means less information in the features. The papers use 0.05 * exp(s), s from 0 to 2.
        seed: fixes the features, W, the networks, the samples and the split.
        information: whether to compute the exact decomposition; without it, ``information`` is None.

    Returns: x, y (n, 12) float32; labels (n,); ``information``, in bits, of the latents and the label. The networks are
    one-to-one on the finite set of latents, up to float32, so it is that of x, y and the label.
    Raises ValueError for a count out of range or counts that do not make 8, and for n, depth, variant or temperature.
    The decomposition takes from milliseconds to a few seconds, once per distribution and process.

    Examples:
        >>> from modalign.data import synthetic
        >>> data = synthetic(redundancy=8, n=1000)
        >>> data.x.shape, data.information.unique_1, data.information.synergy
        (torch.Size([1000, 12]), 0.0, 0.0)
    """
    n, heterogeneity = whole_number("synthetic", "n", n), whole_number("synthetic", "heterogeneity", heterogeneity)
    seed = whole_number("synthetic", "seed", seed, least=0)
    counts = _Counts.of(redundancy, unique_1, unique_2, synergy)
    _require(n >= 20, f"n must be at least 20, so that every part of the split has pairs, got {n}")
    _require(heterogeneity >= 0, f"heterogeneity is a depth and must be >= 0, got {heterogeneity}")
    require_one_of("synthetic: variant", variant, VARIANTS)
    _require(0 < temperature < float("inf"), f"temperature must be positive and finite, got {temperature}")
    generator = np.random.default_rng(seed)
    networks, samples = generator.spawn(2)

    latents = samples.integers(0, 2, (n, SHARED + 2 * UNIQUE), dtype=np.int8)
    probabilities = _label_distribution(counts, temperature, seed)
    cell = latents @ (1 << np.arange(latents.shape[1])[::-1])
    cumulative = probabilities.reshape(-1, CLASSES)[cell].cumsum(1)
    labels = (samples.random((n, 1)) > cumulative[:, :-1]).sum(1)
    split = split_of(labels, seed=seed)

    x = latents[:, :WIDTH].astype(np.float64)
    y = np.concatenate([latents[:, :SHARED], latents[:, WIDTH:]], 1).astype(np.float64)
    y = _transform(y, heterogeneity, variant, networks)
    if variant == "multi":
        x = _transform(x, heterogeneity, variant, networks)
    return PairedDataset(
        name="synthetic",
        modalities=("modality 1", "modality 2"),
        x=_standardised(x, split),
        y=_standardised(y, split),
        labels=torch.from_numpy(labels.astype(np.int64)),
        split=split,
        classes=tuple(str(label) for label in range(CLASSES)),
        information=_information(counts, temperature, seed) if information else None,
        settings={
            "redundancy": counts.redundancy,
            "unique_1": counts.unique_1,
            "unique_2": counts.unique_2,
            "synergy": counts.synergy,
            "n": n,
            "heterogeneity": heterogeneity,
            "variant": variant,
            "temperature": temperature,
            "seed": seed,
        },
    )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"synthetic: {otherwise}")


@dataclass(frozen=True)
class _Counts:
    """The number of label features of each kind."""

    redundancy: int
    unique_1: int
    unique_2: int
    synergy: int

    @classmethod
    def of(cls, redundancy: int, unique_1: int | None, unique_2: int | None, synergy: int) -> _Counts:
        redundancy, synergy = (
            whole_number("synthetic", name, count) for name, count in (("redundancy", redundancy), ("synergy", synergy))
        )
        unique_1, unique_2 = (
            None if count is None else whole_number("synthetic", name, count)
            for name, count in (("unique_1", unique_1), ("unique_2", unique_2))
        )
        _require(0 <= redundancy <= SHARED, f"redundancy must be from 0 to {SHARED}, got {redundancy}")
        _require(0 <= synergy <= UNIQUE, f"synergy must be from 0 to {UNIQUE}, got {synergy}")
        left = FEATURES - redundancy - synergy
        if unique_1 is None:
            unique_1 = left // 2 if unique_2 is None else left - unique_2
        if unique_2 is None:
            unique_2 = left - unique_1
        counts = cls(redundancy, unique_1, unique_2, synergy)
        _require(
            redundancy + unique_1 + unique_2 + synergy == FEATURES,
            f"redundancy + unique_1 + unique_2 + synergy must be {FEATURES}, got {counts.sum_text()}",
        )
        for name, value in (("unique_1", unique_1), ("unique_2", unique_2)):
            _require(0 <= value <= UNIQUE, f"{name} must be from 0 to {UNIQUE}, got {value} ({counts.sum_text()})")
        return counts

    def sum_text(self) -> str:
        parts = (self.redundancy, self.unique_1, self.unique_2, self.synergy)
        return f"{' + '.join(str(part) for part in parts)} = {sum(parts)}"


@dataclass(frozen=True)
class _Features:
    """The latent bits that the label depends on."""

    shared: tuple[int, ...]
    unique_1: tuple[int, ...]
    unique_2: tuple[int, ...]
    synergy: tuple[tuple[int, int], ...]  # (bit of modality 1, bit of modality 2)

    def used(self) -> tuple[list[int], list[int], list[int]]:
        """Return the used bits of the shared latents and of the unique latents of either modality."""
        return (
            sorted(self.shared),
            sorted({*self.unique_1, *(first for first, _ in self.synergy)}),
            sorted({*self.unique_2, *(second for _, second in self.synergy)}),
        )


def _chosen(counts: _Counts, seed: int) -> tuple[_Features, Array]:
    generator = np.random.default_rng([seed, 1])
    shared = generator.permutation(SHARED)[: counts.redundancy]
    first, second = generator.permutation(UNIQUE), generator.permutation(UNIQUE)
    weight = generator.random((FEATURES, CLASSES))
    # unique features from the front, exclusive-ors from the back: they share bits only when they must
    pairs = zip(first[::-1][: counts.synergy], second[::-1][: counts.synergy], strict=True)
    features = _Features(
        tuple(shared.tolist()),
        tuple(first[: counts.unique_1].tolist()),
        tuple(second[: counts.unique_2].tolist()),
        tuple((int(a), int(b)) for a, b in pairs),
    )
    return features, weight / np.linalg.norm(weight, axis=1, keepdims=True)


def _joint_of_used_bits(counts: _Counts, temperature: float, seed: int) -> Array:
    """p(label | used bits): (2^shared, 2^first, 2^second, 4), the first bit of each group the most significant.

    The other latents are fair coins that the label ignores, so nothing is lost by leaving them out.
    """
    features, weight = _chosen(counts, seed)
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
    logits = np.stack(columns, 1) @ weight / temperature
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    while np.abs(p.mean(0) - 1 / CLASSES).max() > 0.01:
        p *= (1 / CLASSES) / p.mean(0)
        p /= p.sum(1, keepdims=True)
    shaped: Array = p.reshape(*(1 << width for width in widths), CLASSES)
    return shaped


def _label_distribution(counts: _Counts, temperature: float, seed: int) -> Array:
    """p(label | latents): (2,) * 16 + (4,), in the order shared, unique of modality 1, unique of modality 2."""
    groups = _chosen(counts, seed)[0].used()
    latents = [*groups[0], *(SHARED + bit for bit in groups[1]), *(WIDTH + bit for bit in groups[2])]
    shape = [1] * (SHARED + 2 * UNIQUE) + [CLASSES]
    for bit in latents:
        shape[bit] = 2
    p = _joint_of_used_bits(counts, temperature, seed).reshape(shape)
    return np.broadcast_to(p, (2,) * (SHARED + 2 * UNIQUE) + (CLASSES,))


@functools.lru_cache(maxsize=256)
def _information(counts: _Counts, temperature: float, seed: int) -> Information:
    """Return the exact decomposition, from the states of the used bits: X1 = (shared, first), X2 = (shared, second)."""
    p = _joint_of_used_bits(counts, temperature, seed)
    shared, first, second, _ = p.shape
    joint = np.zeros((shared, first, shared, second, CLASSES))
    state = np.arange(shared)
    joint[state, :, state] = p / (shared * first * second)
    return pid_of_joint(joint.reshape(shared * first, shared * second, CLASSES))


def _transform(bits: Array, depth: int, variant: str, generator: np.random.Generator) -> Array:
    widths = [WIDTH] * (depth + 2)
    if variant == "width":
        widths = [WIDTH, WIDTH * depth**2, WIDTH] if depth else [WIDTH, WIDTH]
    values = bits
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        bound = fan_in**-0.5
        weight = generator.uniform(-bound, bound, (fan_in, fan_out))
        bias = generator.uniform(-bound, bound, fan_out)
        values = (np.tanh(values) if layer else values) @ weight + bias
    return values


def _standardised(values: Array, split: Tensor) -> Tensor:
    train = values[split.numpy() == TRAIN]
    return torch.from_numpy(((values - train.mean(0)) / train.std(0)).astype(np.float32))
