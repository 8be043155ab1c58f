"""The partial information decomposition of known distributions: exact answers, identities, invariances, errors."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.information import Information, pid_of_joint

PARTS = ("redundancy", "unique_1", "unique_2", "synergy")


def joint(outcomes: list[tuple[int, int, int]]) -> np.ndarray:
    """Return the joint distribution of equally likely outcomes (x1, x2, y)."""
    p = np.zeros([max(column) + 1 for column in zip(*outcomes, strict=True)])
    for outcome in outcomes:
        p[outcome] += 1 / len(outcomes)
    return p


def coins() -> list[tuple[int, int]]:
    return [(a, b) for a in (0, 1) for b in (0, 1)]


AND_REDUNDANCY = 0.75 * np.log2(4 / 3)  # = I(X1; Y), all of it


@pytest.mark.parametrize(
    ("outcomes", "parts"),
    [
        pytest.param([(a, a, a) for a in (0, 1)], (1, 0, 0, 0), id="copy"),
        pytest.param([(a, b, a) for a, b in coins()], (0, 1, 0, 0), id="first alone"),
        pytest.param([(a, b, b) for a, b in coins()], (0, 0, 1, 0), id="second alone"),
        pytest.param([(a, b, a ^ b) for a, b in coins()], (0, 0, 0, 1), id="xor"),
        pytest.param([(a, b, a & b) for a, b in coins()], (AND_REDUNDANCY, 0, 0, 0.5), id="and"),
        pytest.param([(a, b, 1 - (a | b)) for a, b in coins()], (AND_REDUNDANCY, 0, 0, 0.5), id="nor"),
        pytest.param([(a, b, 2 * a + b) for a, b in coins()], (0, 1, 1, 0), id="both, side by side"),
        pytest.param(
            [(2 * c + a, 2 * c + b, 2 * c + (a ^ b)) for c in (0, 1) for a, b in coins()], (1, 0, 0, 1), id="rdn xor"
        ),
        pytest.param([(a, b, 0) for a, b in coins()], (0, 0, 0, 0), id="nothing to know"),
    ],
)
def test_golden(outcomes, parts):
    result = pid_of_joint(joint(outcomes))
    assert [getattr(result, part) for part in PARTS] == pytest.approx(parts, abs=1e-7)


@pytest.mark.parametrize("concentration", [3.0, 0.3, 0.03])
@given(shape=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_parts_are_those_of_the_mutual_informations(concentration, shape, seed):
    p = np.random.default_rng(seed).dirichlet(np.full(np.prod(shape), concentration)).reshape(shape)
    result = pid_of_joint(p)
    assert min(dataclasses.astuple(result)) >= 0
    assert result.redundancy + result.unique_1 == pytest.approx(result.mutual_1, abs=1e-6)
    assert result.redundancy + result.unique_2 == pytest.approx(result.mutual_2, abs=1e-6)
    assert sum(getattr(result, part) for part in PARTS) == pytest.approx(result.mutual_12, abs=1e-6)
    assert result.mutual_12 == pytest.approx(mutual_information(p.reshape(-1, shape[2])), abs=1e-6)


def mutual_information(p: np.ndarray) -> float:
    ratio = np.divide(p, p.sum(0) * p.sum(1, keepdims=True), out=np.ones_like(p), where=p > 0)
    return float((p * np.log2(ratio)).sum())


def distribution(shape=(3, 4, 2), seed=5):
    return np.random.default_rng(seed).dirichlet(np.ones(np.prod(shape))).reshape(shape)


def parts(p):
    return [getattr(pid_of_joint(p), part) for part in PARTS]


def test_swapping_the_modalities_swaps_their_unique_parts():
    r, first, second, s = parts(distribution())
    assert parts(distribution().transpose(1, 0, 2)) == pytest.approx([r, second, first, s], abs=1e-7)


def test_names_of_states_do_not_matter():
    assert parts(distribution()[[2, 0, 1]][:, ::-1, ::-1]) == pytest.approx(parts(distribution()), abs=1e-7)


def test_splitting_a_state_by_a_coin_of_its_own_changes_nothing():
    p = distribution()
    split = np.concatenate([0.3 * p, 0.7 * p])
    assert parts(split) == pytest.approx(parts(p), abs=1e-7)


def test_states_that_never_occur_change_nothing():
    padded = np.zeros((5, 6, 3))
    padded[1:4, :4, 1:] = distribution()
    assert parts(padded) == pytest.approx(parts(distribution()), abs=1e-7)


def test_independent_systems_add_up_in_the_minimum():
    """With a bit copied to both modalities and the label, only the redundancy grows, by that bit."""
    p = distribution()
    joined = np.zeros((6, 8, 4))
    joined[:3, :4, :2] = joined[3:, 4:, 2:] = p / 2
    r, first, second, s = parts(p)
    assert parts(joined) == pytest.approx([r + 1, first, second, s], abs=1e-7)


def test_no_coupling_of_the_marginals_has_less_information():
    """Along every direction that keeps both marginals, the union information of the given p is at least the minimum."""
    p = distribution((2, 2, 2))
    result = pid_of_joint(p)
    least = result.mutual_12 - result.synergy
    grid = []
    for t0 in np.linspace(-1, 1, 401):
        q = p.copy()
        q[:, :, 0] += t0 * np.array([[1, -1], [-1, 1]]) * 0.25
        for t1 in np.linspace(-1, 1, 401) if (q >= 0).all() else ():
            q[:, :, 1] = p[:, :, 1] + t1 * np.array([[1, -1], [-1, 1]]) * 0.25
            if (q >= 0).all():
                grid.append(mutual_information(q.reshape(4, 2)))
    assert min(grid) >= least - 1e-9
    assert min(grid) == pytest.approx(least, abs=1e-3)


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.full((2, 2), 0.25), "got shape"),
        (np.zeros((2, 0, 2)), "no empty axis"),
        (np.array([[[1.5, -0.5]]]), "not negative"),
        (np.array([[[np.nan, 1.0]]]), "finite"),
        (np.full((2, 2, 2), 0.25), "sum to 1, got 2"),
    ],
)
def test_refuses_what_is_no_distribution(p, message):
    with pytest.raises(ValueError, match=message):
        pid_of_joint(p)


def test_information_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Information(0, 0, 0, 0, 0, 0, 0).synergy = 1.0


def test_a_step_too_many_loses_nothing() -> None:
    """With these clusters of 1,258 windows of digits, a late step at the edge of float64 sets the method back."""
    with np.load(Path(__file__).with_name("hard_marginals.npz")) as counts:
        first, second = (counts[name].astype(np.float64) for name in ("first", "second"))
    p = first[:, None] * second[None] / first.sum(0) / first.sum()
    result = pid_of_joint(p)
    assert result.redundancy == pytest.approx(3.03363817, abs=1e-7)
    assert result.unique_1 + result.redundancy == pytest.approx(result.mutual_1, abs=1e-12)
