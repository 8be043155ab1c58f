"""The synthetic generator: its distribution is the one it says it is."""

import dataclasses

import numpy as np
import pytest
import torch

from modalign.data import TEST, TRAIN, VALIDATION, synthetic

SMALL = {"redundancy": 2, "n": 20_000}


def test_the_same_seed_gives_the_same_data_and_another_gives_other_data():
    first, again, other = synthetic(**SMALL), synthetic(**SMALL), synthetic(**SMALL, seed=1)
    for name in ("x", "y", "labels", "split"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert first.information == again.information
    assert not torch.equal(first.x, other.x)
    assert first.information != other.information


def test_shapes_types_and_settings():
    data = synthetic(redundancy=5, n=101)
    assert data.x.shape == data.y.shape == (101, 12)
    assert data.x.dtype == data.y.dtype == torch.float32
    assert data.labels.dtype == torch.int64
    assert data.split.dtype == torch.int8
    assert (data.settings["unique_1"], data.settings["unique_2"]) == (1, 2)
    assert data.classes == ("0", "1", "2", "3")


def test_classes_are_balanced_and_the_split_is_stratified():
    data = synthetic(**SMALL)
    assert torch.bincount(data.labels) / len(data) == pytest.approx([0.25] * 4, abs=0.02)
    for label in range(4):
        counts = torch.bincount(data.split[data.labels == label].long(), minlength=3)
        assert counts / counts.sum() == pytest.approx([0.7, 0.15, 0.15], abs=0.001)


def test_the_training_part_has_mean_zero_and_variance_one():
    data = synthetic(**SMALL)
    for values in (data.part(TRAIN).x, data.part(TRAIN).y):
        assert values.mean(0).abs().max() < 1e-5
        assert values.var(0, correction=0) == pytest.approx(np.ones(12), abs=1e-4)
    assert not torch.allclose(data.part(TEST).x.mean(0), torch.zeros(12), atol=1e-5)
    assert len(data.part(VALIDATION)) == 3000


def plug_in(codes: torch.Tensor, labels: torch.Tensor) -> float:
    """Mutual information of samples in bits, less the bias of plugging frequencies in (Miller and Madow)."""
    cells = torch.stack([codes, labels], 1)
    counts = [np.unique(table, axis=0, return_counts=True)[1] for table in (cells, codes, labels)]
    entropies = [
        -(c / len(labels) * np.log2(c / len(labels))).sum() + (len(c) - 1) / (2 * len(labels) * np.log(2))
        for c in counts
    ]
    return entropies[1] + entropies[2] - entropies[0]


@pytest.mark.parametrize(("redundancy", "synergy"), [(0, 0), (3, 0), (8, 0), (2, 2)])
def test_exact_information_is_that_of_the_samples(redundancy, synergy):
    """x is the 12 bits of modality 1, so its information about the label can be counted."""
    data = synthetic(redundancy=redundancy, synergy=synergy, n=200_000, heterogeneity=0)
    bits = (data.x > 0).long() @ (1 << torch.arange(12))
    assert plug_in(bits, data.labels) == pytest.approx(data.information.mutual_1, abs=0.01)
    rows = np.unique(data.y.numpy().round(3), axis=0, return_inverse=True)[1].reshape(-1)
    assert plug_in(torch.from_numpy(rows), data.labels) == pytest.approx(data.information.mutual_2, abs=0.01)


@pytest.mark.parametrize("settings", [{"heterogeneity": 10}, {"heterogeneity": 3, "variant": "width"}])
def test_the_network_keeps_the_states_of_modality_2_apart(settings):
    """One-to-one, so that the information of the latents is that of y."""
    data = synthetic(redundancy=8, n=60_000, **settings)
    assert len(np.unique(data.y.numpy(), axis=0)) == 2**12


def test_redundancy_alone_is_all_the_information_there_is():
    information = synthetic(redundancy=8, n=20).information
    assert information.redundancy == pytest.approx(information.mutual_12)
    assert (information.unique_1, information.unique_2, information.synergy) == (0, 0, 0)


def test_redundancy_rises_and_uniqueness_falls_with_shared_features():
    """The total does not move: the label depends on eight fair coins in one way, whoever sees them."""
    swept = [synthetic(redundancy=r, n=20).information for r in (0, 2, 4, 8)]
    shared = [information.redundancy for information in swept]
    unique = [information.unique_1 + information.unique_2 for information in swept]
    assert shared == sorted(shared)
    assert unique[0] > unique[-1]
    assert [information.mutual_12 for information in swept] == pytest.approx([swept[0].mutual_12] * 4, abs=1e-6)


def test_the_information_of_the_papers_setting():
    """About 1.159 nats at temperature 0.05, whatever W the seed gives."""
    nats = [synthetic(redundancy=8, n=20, seed=seed).information.mutual_12 * np.log(2) for seed in range(8)]
    assert np.mean(nats) == pytest.approx(1.159, abs=0.06)


def test_exclusive_ors_move_information_into_synergy():
    none, some = (synthetic(redundancy=2, synergy=s, n=20).information for s in (0, 2))
    assert some.synergy > none.synergy + 0.2
    assert some.redundancy + some.unique_1 == pytest.approx(some.mutual_1, abs=1e-6)


def test_temperature_sets_how_much_can_be_known():
    levels = [synthetic(redundancy=8, n=20, temperature=0.05 * np.exp(s)).information.mutual_12 for s in (0, 1, 2)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 2 * levels[-1]


def test_variants_differ_only_in_what_they_transform():
    uni, multi, width = (synthetic(redundancy=8, n=500, variant=v) for v in ("uni", "multi", "width"))
    assert torch.equal(uni.x, width.x)
    assert not torch.equal(uni.y, width.y)
    assert len(torch.unique(uni.x[:, 0])) == 2 < len(torch.unique(multi.x[:, 0]))
    assert torch.equal(uni.labels, multi.labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"redundancy": 9}, "redundancy must be from 0 to 8, got 9"),
        ({"redundancy": -1}, "redundancy must be from 0 to 8, got -1"),
        ({"redundancy": 4, "unique_1": 1, "unique_2": 1}, r"must be 8, got 4 \+ 1 \+ 1 \+ 0 = 6"),
        ({"redundancy": 2, "unique_1": 5}, "unique_1 must be from 0 to 4, got 5"),
        ({"redundancy": 8, "unique_1": 1}, "unique_2 must be from 0 to 4, got -1"),
        ({"synergy": 5}, "synergy must be from 0 to 4, got 5"),
        ({"n": 3}, "n must be at least 20"),
        ({"heterogeneity": -1}, "must be >= 0"),
        ({"variant": "deep"}, "variant must be one of uni, multi, width, identity, got 'deep'"),
        ({"nonlinearity": "relu"}, "nonlinearity must be one of tanh, sigmoid, got 'relu'"),
        ({"sizes": {"clases": 3}}, "sizes takes shared, unique, features, classes, got 'clases'; did you mean classes"),
        ({"sizes": {"shared": 20, "unique": 1}}, "at most 20 latent bits, got 22"),
        ({"seeds": {"weight": 3}}, "seeds takes features, weights, networks, got 'weight'; did you mean weights"),
        ({"draw": "theirs"}, "draw must be one of modalign, published, got 'theirs'"),
        ({"draw": "published", "seed": 3}, "leave seed out, got 3"),
        ({"draw": "published", "synergy": 1, "redundancy": 3}, "leave synergy out, got 1"),
        (
            {"draw": "published", "nonlinearity": "sigmoid", "heterogeneity": 15, "n": 50},
            "a feature is the same for all pairs",
        ),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": 1e-4}, "classes cannot be made equally probable at so small a temperature"),
        ({"temperature": 1e-300}, "classes cannot be made equally probable at so small a temperature"),
        ({"temperature": float("nan")}, "temperature must be positive"),
    ],
)
def test_refuses_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        synthetic(**settings)


SIZES = {"shared": 3, "unique": 2, "features": 4, "classes": 3}


@pytest.mark.parametrize(
    "settings",
    [
        {"redundancy": 3, "variant": "multi", "seed": 7},
        {"redundancy": 2, "sizes": SIZES, "nonlinearity": "sigmoid", "seeds": {"weights": 4}},
        {"draw": "published", "heterogeneity": 1},
    ],
)
def test_settings_make_the_data_again(settings):
    data = synthetic(n=60, **settings)
    again = synthetic(**data.settings)
    assert torch.equal(data.y, again.y)
    assert dataclasses.asdict(data.information) == dataclasses.asdict(again.information)


# values of the published generator (commit 20f2286), 4,000 pairs: labels of the first twelve training pairs, and the
# first four features of modality 2 of the first training and of the last test pair, standardised as it standardises
PUBLISHED = [
    (
        {"redundancy": 8, "heterogeneity": 1, "nonlinearity": "sigmoid"},
        [0, 3, 3, 2, 0, 3, 1, 2, 1, 1, 0, 2],
        [-1.589945673942566, -0.474425733089447, 1.5879138708114624, -0.2441129982471466],
        [0.8664328455924988, 0.2614310085773468, -0.3168407380580902, 0.29462361335754395],
    ),
    (
        {"redundancy": 0, "heterogeneity": 2, "variant": "width"},
        [1, 1, 1, 1, 3, 3, 3, 2, 2, 1, 3, 3],
        [-0.7801030874252319, 0.02551392652094364, 1.6734082698822021, -1.4379702806472778],
        [0.8996778622004, -0.3141458332538605, -0.004027782008051872, 1.911647915840149],
    ),
    (
        {"redundancy": 5, "heterogeneity": 0, "variant": "width"},
        [0, 0, 0, 3, 0, 0, 2, 3, 2, 2, 0, 3],
        [-2.277750253677368, 0.8500075936317444, -0.8143773078918457, 0.058204278349876404],
        [-0.9706385135650635, 1.1343872547149658, 2.3156611919403076, -2.6754257678985596],
    ),
]


@pytest.mark.parametrize(("settings", "labels", "first", "last"), PUBLISHED)
def test_a_published_draw_has_the_values_of_the_published_code(settings, labels, first, last):
    data = synthetic(n=4000, draw="published", information=settings["redundancy"] == 8, **settings)
    assert data.labels[:12].tolist() == labels
    assert data.y[0, :4].tolist() == pytest.approx(first, abs=1e-4)
    assert data.y[-1, :4].tolist() == pytest.approx(last, abs=1e-4)
    if data.information is not None:
        assert data.information.mutual_12 * np.log(2) == pytest.approx(1.1588390490275, abs=1e-6)
    assert torch.bincount(data.split.long()).tolist() == [2800, 600, 600]


def test_sizes_and_seeds_are_those_that_are_named():
    data = synthetic(redundancy=2, n=400, sizes=SIZES, variant="identity")
    assert data.x.shape == data.y.shape == (400, 5)
    assert data.classes == ("0", "1", "2")
    assert (data.settings["unique_1"], data.settings["unique_2"]) == (1, 1)
    assert all(len(torch.unique(data.y[:, i])) == 2 for i in range(5))
    base, networks, weights = (synthetic(n=200, seeds=seeds) for seeds in ({}, {"networks": 5}, {"weights": 5}))
    assert torch.equal(base.labels, networks.labels)
    assert not torch.equal(base.y, networks.y)
    assert base.information == networks.information != weights.information


def test_sigmoid_networks_keep_the_states_of_modality_2_apart():
    data = synthetic(redundancy=8, n=60_000, nonlinearity="sigmoid")
    assert len(np.unique(data.y.numpy(), axis=0)) == 2**12


def test_the_width_variant_has_one_hidden_layer_at_heterogeneity_0():
    """As in the published code: modality 2 is no linear map of its bits."""
    bits, hidden, linear = (
        synthetic(redundancy=8, n=500, heterogeneity=0, variant=variant, information=False).y.double()
        for variant in ("identity", "width", "uni")
    )
    bits = torch.cat([bits, torch.ones(500, 1)], 1)
    left = [values - bits @ torch.linalg.lstsq(bits, values).solution for values in (hidden, linear)]
    assert left[0].abs().max() > 0.1
    assert left[1].abs().max() < 1e-5
