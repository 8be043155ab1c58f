"""No metric depends on the order of the rows, or of the columns, except where neighbours are tied."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import modalign
from modalign.metrics import METRICS, cca, pwcca, svcca
from modalign.metrics.undefined import UndefinedScoreError

Rows = NDArray[np.float64]
rng = np.random.default_rng(0)


def wide(n: int, d: int) -> tuple[Rows, Rows]:
    """Return rows that share directions: their widths add up to more than n - 1."""
    x = rng.normal(size=(n, d))
    return x, x @ rng.normal(size=(d, d)) + 3 * rng.normal(size=(n, d))


def deficient() -> tuple[Rows, Rows]:
    x = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 9))
    return x, x[:, :3] @ rng.normal(size=(3, 9)) + rng.normal(size=(60, 2)) @ rng.normal(size=(2, 9))


DATA: dict[str, Callable[[], tuple[Rows, Rows]]] = {
    "widths beyond the rows": lambda: wide(30, 20),
    "widths of the rows": lambda: wide(40, 20),
    "deficient": deficient,
    "repeated columns": lambda: (np.tile(rng.normal(size=(60, 4)), 2), rng.normal(size=(60, 8))),
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize(
    "name", sorted(set(METRICS) - {"svcca_code"})
)  # whose random directions are of columns in their order
def test_the_order_of_rows_and_columns_changes_no_score(name: str, kind: str) -> None:
    x, y = DATA[kind]()
    score, options = METRICS[name].load("score"), {"k": 5} if METRICS[name].needs in ("lists", "graphs") else {}
    results = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        rows, columns = generator.permutation(len(x)), generator.permutation(x.shape[1])
        try:
            results.append(score(x[rows][:, columns], y[rows][:, columns], **options))
        except UndefinedScoreError:
            results.append(np.nan)
    numbers = [getattr(result, "x_to_y", result) for result in results]
    numbers = [getattr(number, "median", number) for number in numbers]
    np.testing.assert_allclose(numbers, numbers[0], rtol=0, atol=1e-9)


def test_pwcca_is_refused_where_some_correlations_are_equal() -> None:
    x, y = wide(30, 20)
    with pytest.raises(UndefinedScoreError, match="got 11 of 1 beside others, whose weights are not determined"):
        pwcca(x, y)
    assert 0 < cca(x, y) < 1
    x, y = wide(40, 20)  # one correlation is 1
    assert 0 < pwcca(x, y) < 1
    assert pwcca(x, x) == pytest.approx(1)  # all are equal, whatever the weights
    shared = np.concatenate([x[:, :3], rng.normal(size=(40, 3))], axis=1)
    with pytest.raises(UndefinedScoreError, match="got 3 of 1 beside others"):
        pwcca(x, shared)
    with pytest.raises(UndefinedScoreError, match="got 3 of 1 beside others"):
        pwcca(shared, x, symmetric=True)


def test_pwcca_is_refused_where_a_direction_of_correlation_0_may_be_turned() -> None:
    orthogonal = np.linalg.qr(np.c_[np.ones(40), rng.normal(size=(40, 6))])[0][:, 1:]
    x, y = orthogonal[:, :4], np.c_[orthogonal[:, 0] + 0.5 * orthogonal[:, 5], orthogonal[:, 4]]
    with pytest.raises(UndefinedScoreError, match=r"got 1 of .* beside others"):
        pwcca(x, y)
    assert 0 < pwcca(y, x) < 1


def test_svcca_is_refused_where_components_of_equal_variance_would_be_divided() -> None:
    x, y = np.linalg.qr(np.c_[np.ones(40), rng.normal(size=(40, 6))])[0][:, 1:], rng.normal(size=(40, 6))
    with pytest.raises(UndefinedScoreError, match="components 3 and 4 of x hold equal variance"):
        svcca(x, y, components=3)
    assert 0 < svcca(x, y) < 1


def test_align_names_the_metrics_that_all_leaves_out() -> None:
    x, y = wide(30, 20)
    result = modalign.align(x, y[:, :18], "all", k=3, intervals=False, null="none")
    assert "no retrieval, which needs x and y of one width, got 20 and 18" in result.notes
    assert any(note.startswith("no pwcca: ") and "correlations that differ" in note for note in result.notes)
    left_out = {name for name in METRICS if not METRICS[name].options} - {score.metric for score in result.scores}
    assert all(any(name in note for note in result.notes) for name in left_out)
