"""Synthetic pairs with a chosen amount of redundant, unique and synergistic information about the label.

The setting of Tjandrasuwita et al. 2025 (arXiv:2502.16282) and Fang et al. 2026 (arXiv:2511.12121). Every probability
is known, so the mutual informations and the partial information decomposition come with the data, exact.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modalign.common.checks import whole_number
from modalign.data.arrays import require_one_of
from modalign.data.label_law import Counts, Features, LabelLaw, Sizes, from_mapping
from modalign.data.paired import TRAIN, PairedDataset, split_of
from modalign.data.published_draw import SEEDS, layer_widths, published_draw, published_views

__all__ = ["synthetic"]

Array = NDArray[np.float64]

VARIANTS = ("uni", "multi", "width", "identity")
NONLINEARITIES: dict[str, Callable[[Array], Array]] = {"tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Seeds of parts of the draw; None for those that follow from the seed of the whole.

    Attributes:
        features: The label's features.
        weights: W.
        networks: The networks of the modalities.
    """

    features: int | None = None
    weights: int | None = None
    networks: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                whole_number("synthetic: seeds", field.name, value, least=0)


@dataclasses.dataclass(frozen=True)
class _Design:
    """The checked arguments of ``synthetic``. seeds: those that were given, by name."""

    sizes: Sizes
    counts: Counts
    n: int
    heterogeneity: int
    variant: str
    nonlinearity: str
    temperature: float
    seed: int
    seeds: dict[str, int]
    draw: str

    def settings(self) -> dict[str, object]:
        """Return the arguments that make the data again; those that few change are left out where they are usual."""
        settings = dataclasses.asdict(self.counts)
        for name in ("n", "heterogeneity", "variant", "temperature", "seed"):
            settings[name] = getattr(self, name)
        rare = {"nonlinearity": "tanh", "sizes": Sizes(), "seeds": {}, "draw": "modalign"}
        for name, usual in rare.items():
            value = getattr(self, name)
            if value != usual:
                settings[name] = dataclasses.asdict(value) if isinstance(value, Sizes) else value
        return settings


@dataclasses.dataclass(frozen=True)
class _Values:
    """The values of a data set, before they are standardised."""

    law: LabelLaw
    x: NDArray[np.floating]
    y: NDArray[np.floating]
    labels: NDArray[np.int64]
    split: Tensor


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
    nonlinearity: str = "tanh",
    sizes: Sizes | Mapping[str, int] | None = None,
    seeds: Seeds | Mapping[str, int] | None = None,
    draw: str = "modalign",
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
            one hidden layer of 12 * heterogeneity^2 units, and of 12 at 0, in place of depth; "identity" leaves both
            modalities as their bits.
        temperature: > 0; larger means less information in the features. The papers use 0.05 * exp(s), s from 0 to 2.
        seed: fixes the features, W, the networks, the samples and the split.
        information: whether to compute the exact decomposition; without it, ``information`` is None.
        nonlinearity: "tanh" or "sigmoid", between the layers of a network.
        sizes: other sizes than those above, a mapping of some of ``shared`` 8, ``unique`` 4, ``features`` 8 and
            ``classes`` 4. The networks are as wide as a modality, shared + unique.
        seeds: separate seeds, a mapping of some of ``features``, ``weights`` (of W) and ``networks``; those that are
            left out follow ``seed``.
        draw: "modalign", for which the network of a depth begins with the layers of the smaller depths; or
            "published", the values of the published code of Tjandrasuwita et al., which draws new networks for each
            depth and takes its seeds, 1, 2 and 0, from ``seeds`` alone. W, features, networks and samples are then
            the same for every caller.

    Returns: x, y (n, 12) float32; labels (n,); ``information``, in bits, of the latents and the label. The networks are
    one-to-one on the finite set of latents, up to float32, so it is that of x, y and the label. Rows of a published
    draw stand in the order of the parts of the split.
    Raises ValueError for a count out of range or counts that do not make 8; for n, depth, variant or temperature; for
    sizes and seeds of unknown names or out of range; for a network so deep that a feature no longer varies; and for a
    seed or exclusive-ors with draw="published".
    The decomposition takes from milliseconds to a few seconds, once per distribution and process.

    Examples:
        >>> from modalign.data import synthetic
        >>> data = synthetic(redundancy=8, n=1000)
        >>> data.x.shape, data.information.unique_1, data.information.synergy
        (torch.Size([1000, 12]), 0.0, 0.0)
        >>> small = synthetic(redundancy=2, n=100, sizes={"shared": 3, "unique": 2, "features": 4, "classes": 2})
        >>> small.x.shape, small.classes
        (torch.Size([100, 5]), ('0', '1'))
    """
    n, heterogeneity = whole_number("synthetic", "n", n), whole_number("synthetic", "heterogeneity", heterogeneity)
    seed = whole_number("synthetic", "seed", seed, least=0)
    whole = from_mapping(Sizes, "sizes", sizes)
    given = {
        name: value
        for name, value in dataclasses.asdict(from_mapping(Seeds, "seeds", seeds)).items()
        if value is not None
    }
    counts = Counts.of(whole, redundancy, unique_1, unique_2, synergy=synergy)
    _require(n >= 20, f"n must be at least 20, so that every part of the split has pairs, got {n}")
    _require(heterogeneity >= 0, f"heterogeneity is a depth and must be >= 0, got {heterogeneity}")
    require_one_of("synthetic: variant", variant, VARIANTS)
    require_one_of("synthetic: nonlinearity", nonlinearity, tuple(NONLINEARITIES))
    require_one_of("synthetic: draw", draw, tuple(DRAWS))
    _require(0 < temperature < float("inf"), f"temperature must be positive and finite, got {temperature}")
    if draw == "published":
        _require(seed == 0, f"published data follow `seeds` only: leave seed out, got {seed}")
        _require(synergy == 0, f"published data hold no exclusive-ors: leave synergy out, got {synergy}")
    design = _Design(
        sizes=whole,
        counts=counts,
        n=n,
        heterogeneity=heterogeneity,
        variant=variant,
        nonlinearity=nonlinearity,
        temperature=temperature,
        seed=seed,
        seeds=given,
        draw=draw,
    )
    values = DRAWS[draw](design)
    return PairedDataset(
        name="synthetic",
        modalities=("modality 1", "modality 2"),
        x=_standardised(values.x, values.split),
        y=_standardised(values.y, values.split),
        labels=torch.from_numpy(values.labels),
        split=values.split,
        classes=tuple(str(label) for label in range(whole.classes)),
        information=values.law.information() if information else None,
        settings=design.settings(),
    )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"synthetic: {otherwise}")


def _own(design: _Design) -> _Values:
    """Draw a data set; the network of a depth begins with the layers of the smaller depths."""
    sizes, seed = design.sizes, design.seed
    seeds = dict.fromkeys(("features", "weights", "networks"), seed) | design.seeds
    features, _ = _chosen(sizes, design.counts, seeds["features"])
    _, weight = _chosen(sizes, design.counts, seeds["weights"])
    law = LabelLaw.of(sizes, features, weight, temperature=design.temperature)
    networks, _ = np.random.default_rng(seeds["networks"]).spawn(2)
    _, samples = np.random.default_rng(seed).spawn(2)

    latents = samples.integers(0, 2, (design.n, sizes.shared + 2 * sizes.unique), dtype=np.int8)
    cell = latents @ (1 << np.arange(latents.shape[1])[::-1])
    cumulative = law.of_latents().reshape(-1, sizes.classes)[cell].cumsum(1)
    labels = (samples.random((design.n, 1)) > cumulative[:, :-1]).sum(1)
    x, y = _seen(latents, sizes)
    if design.variant != "identity":
        y = _transform(y, design, networks)
    if design.variant == "multi":
        x = _transform(x, design, networks)
    return _Values(law, x, y, labels=labels.astype(np.int64), split=split_of(labels, seed=seed))


def _published(design: _Design) -> _Values:
    """Draw a data set as the published code does."""
    sizes, depth, seeds = design.sizes, design.heterogeneity, SEEDS | design.seeds
    drawn = published_draw(sizes, design.counts, design.temperature, n=design.n, heterogeneity=depth, seeds=seeds)
    views = [torch.from_numpy(view).float() for view in _seen(drawn.latents, sizes)]
    x, y = (
        view.numpy()
        for view in published_views(
            (views[0], views[1]),
            depth,
            variant=design.variant,
            nonlinearity=design.nonlinearity,
            seed=seeds["networks"],
        )
    )
    return _Values(drawn.law, x, y, labels=drawn.labels, split=torch.from_numpy(drawn.split))


DRAWS = {"modalign": _own, "published": _published}


def _chosen(sizes: Sizes, counts: Counts, seed: int) -> tuple[Features, Array]:
    generator = np.random.default_rng([seed, 1])
    shared = generator.permutation(sizes.shared)[: counts.redundancy]
    first, second = generator.permutation(sizes.unique), generator.permutation(sizes.unique)
    weight = generator.random((sizes.features, sizes.classes))
    # unique features from the front, exclusive-ors from the back: they share bits only when they must
    pairs = zip(first[::-1][: counts.synergy], second[::-1][: counts.synergy], strict=True)
    features = Features(
        tuple(shared.tolist()),
        tuple(first[: counts.unique_1].tolist()),
        tuple(second[: counts.unique_2].tolist()),
        tuple((int(a), int(b)) for a, b in pairs),
    )
    return features, weight


def _seen(latents: NDArray[np.int8], sizes: Sizes) -> tuple[Array, Array]:
    """Return the bits that each modality sees."""
    bits = latents.astype(np.float64)
    return bits[:, : sizes.width], np.concatenate([bits[:, : sizes.shared], bits[:, sizes.width :]], 1)


def _transform(bits: Array, design: _Design, generator: np.random.Generator) -> Array:
    between, values = NONLINEARITIES[design.nonlinearity], bits
    widths = layer_widths(design.heterogeneity, bits.shape[1], design.variant)
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        bound = fan_in**-0.5
        weight = generator.uniform(-bound, bound, (fan_in, fan_out))
        bias = generator.uniform(-bound, bound, fan_out)
        values = (between(values) if layer else values) @ weight + bias
    return values


def _standardised(values: NDArray[np.floating], split: Tensor) -> Tensor:
    train = values[split.numpy() == TRAIN]
    if not train.std(0).all():
        raise ValueError(
            "synthetic: a feature is the same for all pairs, in float32, after so deep a network: take a smaller "
            'heterogeneity, nonlinearity="tanh" or draw="modalign"'
        )
    return torch.from_numpy(((values - train.mean(0)) / train.std(0)).astype(np.float32))
