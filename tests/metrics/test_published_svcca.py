"""SVCCA of the published programs: their values, for the random directions that torch draws for them."""

import numpy as np
import pytest
import torch

import modalign
from modalign.metrics import svcca, svcca_code
from modalign.metrics.inputs import PairedRows
from modalign.metrics.published_svcca import relabelled_svcca_code


def rows(n: int, d_x: int, d_y: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    rng, least = np.random.default_rng(n), min(d_x, d_y)
    shared = rng.normal(size=(n, least))
    x = np.concatenate([shared, rng.normal(size=(n, d_x - least))], 1)
    return x, share * shared + rng.normal(size=(n, d_y))


@pytest.mark.parametrize(
    ("n", "d_x", "d_y", "share", "seed", "value"),
    # align_metrics.py of commit 20f2286, float64, after torch.manual_seed(seed); it adds noise of 1e-10
    [
        (300, 12, 12, 0.5, 0, 0.4066428257136236),
        (512, 12, 12, 0.9, 1, 0.5797835924943364),
        (200, 64, 48, 0.3, 0, 0.24105320123167434),
        (64, 100, 80, 0.5, 0, 0.4445537717823783),
        (64, 100, 80, 0.5, 1, 0.39053056327670743),
    ],
)
def test_it_is_the_published_value(n: int, d_x: int, d_y: int, share: float, seed: int, value: float) -> None:
    x, y = rows(n, d_x, d_y, share)
    assert svcca_code(x, y, seed=seed) == pytest.approx(value, abs=3e-7)


def test_it_is_svcca_where_all_directions_are_kept() -> None:
    x, y = rows(200, 10, 10, 0.7)
    assert svcca_code(x, y) == pytest.approx(svcca(x, y, components=10, standardize=True), abs=1e-9)


def test_relabelled_rows_score_as_rows_in_another_order() -> None:
    x, y = rows(100, 15, 12, 0.5)
    order = torch.from_numpy(np.random.default_rng(1).permutation(100))
    score = relabelled_svcca_code(PairedRows(x, y))
    assert score(order) == pytest.approx(svcca_code(x, y[order.numpy()]), abs=1e-9)


def test_the_registry_has_it() -> None:
    x, y = rows(100, 15, 12, 0.5)
    score = modalign.align(x, y, ["svcca_code"], relabellings=19)["svcca_code"]
    assert score.value == svcca_code(x, y)
    assert score.null is not None
    assert score.null.mean > 0.2  # of ten directions in a hundred rows


@pytest.mark.parametrize("components", [10, 30])
def test_too_few_directions_are_refused(components: int) -> None:
    y, x = rows(60, 12, 9, 0.5)
    with pytest.raises(ValueError, match=f"x has 9 directions that vary, got components = {components}"):
        svcca_code(x, y, components=components)
