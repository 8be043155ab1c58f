"""Information imbalance and retrieval against dense NumPy, with ties, duplicates and groups."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from modalign.metrics import information_imbalance, retrieval

METRICS = ["euclidean", "cosine", "dot"]
tiled = pytest.mark.usefixtures("tile")


def scores(x: np.ndarray, y: np.ndarray, metric: str) -> np.ndarray:
    """Return the scores of every two rows, added feature by feature as ``modalign.knn`` defines them."""
    total = np.zeros((len(x), len(y)))
    squares = [np.zeros(len(x)), np.zeros(len(y))]
    for a, b in zip(x.T, y.T, strict=True):
        total = total - (a[:, None] - b) ** 2 if metric == "euclidean" else total + a[:, None] * b
        squares = [squares[0] + a * a, squares[1] + b * b]
    if metric == "cosine":
        one, two = (np.where(s > 0, 1 / np.sqrt(np.where(s > 0, s, 1)), 0) for s in squares)
        total = total * one[:, None] * two
    return total


def places(table: np.ndarray) -> np.ndarray:
    """Return the mean rank, from 1, of every column in its row over all orders of equal ones."""
    return rankdata(-table, axis=1)


def dense_imbalance(x: np.ndarray, y: np.ndarray, metric: str) -> float:
    near, far = (scores(z, z, metric) for z in (x, y))
    for table in (near, far):
        np.fill_diagonal(table, -np.inf)
    is_nearest = near == near.max(1, keepdims=True)
    return float(2 / len(x) * ((places(far) * is_nearest).sum(1) / is_nearest.sum(1)).mean())


def noisy(n: int = 120, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    return x, x + 0.9 * rng.normal(size=x.shape)


def binary(n: int = 130) -> np.ndarray:
    """Return rows with many equal scores, some of which rounding makes differ, and zero rows."""
    return np.random.default_rng(2).integers(0, 2, size=(n, 11)) * 0.1


@pytest.fixture(params=[1024, 17])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tiles", "tiled_scores"):
        monkeypatch.setattr(f"modalign.metrics.{module}.TILE", request.param)
    monkeypatch.setattr("modalign.metrics.tiled_scores.GATHERED", 60 * request.param)


@tiled
@pytest.mark.parametrize("metric", METRICS)
def test_information_imbalance(metric: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 4)), rng.normal(size=(150, 3))
    y[:, 0] = x[:, 0]
    result = information_imbalance(x, y, metric=metric)
    assert result.x_to_y == pytest.approx(dense_imbalance(x, y, metric), abs=1e-12)
    assert result.y_to_x == pytest.approx(dense_imbalance(y, x, metric), abs=1e-12)


def test_unrelated_items_are_in_the_middle() -> None:
    rng = np.random.default_rng(1)
    result = information_imbalance(rng.normal(size=(500, 4)), rng.normal(size=(500, 4)))
    assert result.x_to_y == pytest.approx(1, abs=0.1)


@tiled
@pytest.mark.parametrize("metric", METRICS)
def test_equal_scores_share_their_mean_rank(metric: str) -> None:
    x, y = binary(), binary()[::-1].copy()
    result = information_imbalance(x, y, metric=metric)
    assert result.x_to_y == pytest.approx(dense_imbalance(x, y, metric), abs=1e-12)
    sides = retrieval(x, y, metric=metric)
    assert sides.x_to_y.ranks.tolist() == np.diagonal(places(scores(x, y, metric))).tolist()
    assert sides.y_to_x.ranks.tolist() == np.diagonal(places(scores(y, x, metric))).tolist()


@tiled
@pytest.mark.parametrize("metric", METRICS)
def test_x_with_itself_has_the_smallest_imbalance(metric: str) -> None:
    """That is 2 / n without ties; of c items that tie for the nearest, the mean rank is (c + 1) / 2."""
    x = np.random.default_rng(0).normal(size=(150, 4))
    assert information_imbalance(x, x, metric=metric).x_to_y == 2 / len(x)
    x = binary() + 1
    near = scores(x, x, metric)
    np.fill_diagonal(near, -np.inf)
    tied = (near == near.max(1, keepdims=True)).sum(1)
    assert information_imbalance(x, x, metric=metric).x_to_y == pytest.approx((tied + 1).mean() / len(x), rel=1e-14)


@tiled
@pytest.mark.parametrize("metric", METRICS)
def test_retrieval(metric: str) -> None:
    x, y = noisy()
    result = retrieval(x, y, metric=metric, k=(1, 5))
    for side, table in ((result.x_to_y, scores(x, y, metric)), (result.y_to_x, scores(y, x, metric))):
        expected = np.diagonal(places(table))
        assert side.ranks.tolist() == expected.tolist()
        assert side.recall == {1: (expected <= 1).mean(), 5: (expected <= 5).mean()}
        assert side.median == np.median(expected)
        assert side.reciprocal == pytest.approx((1 / expected).mean(), rel=1e-14)


@tiled
@pytest.mark.parametrize("metric", METRICS)
def test_the_best_of_a_group_counts(metric: str) -> None:
    x, y = noisy(130)
    groups = np.random.default_rng(1).integers(-5, 30, size=130)
    groups[:40] = 7  # more than a tile
    result = retrieval(x, y, metric=metric, groups=groups, candidates="rows")
    for side, table in ((result.x_to_y, scores(x, y, metric)), (result.y_to_x, scores(y, x, metric))):
        expected = np.where(groups[:, None] == groups, places(table), len(x)).min(1)
        assert side.ranks.tolist() == expected.tolist()


@tiled
@pytest.mark.parametrize("metric", METRICS)
def test_a_repeated_image_is_one_candidate_and_one_query(metric: str) -> None:
    """The protocol of COCO: images are ranked among images, and a caption of the image is what an image looks for."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, size=40)
    image, groups = rng.normal(size=(40, 8)), np.repeat(np.arange(40), counts) * 7 - 3
    captions = np.repeat(image, counts, 0) + 1.2 * rng.normal(size=(len(groups), 8))
    order = rng.permutation(len(groups))
    x, y, groups = np.repeat(image, counts, 0)[order], captions[order], groups[order]
    firsts = np.sort(np.unique(groups, return_index=True)[1])  # the images, in the order of their first rows
    table = scores(x[firsts], y, metric)
    partner = groups[firsts][:, None] == groups
    result = retrieval(x, y, metric=metric, groups=groups)
    assert result.x_to_y.ranks.tolist() == np.where(partner, places(table), len(y)).min(1).tolist()
    assert result.y_to_x.ranks.tolist() == np.where(partner.T, places(table.T), len(firsts)).min(1).tolist()
    swapped = retrieval(y, x, metric=metric, groups=groups)
    assert swapped.x_to_y.ranks.equal(result.y_to_x.ranks)
    assert swapped.y_to_x.ranks.equal(result.x_to_y.ranks)
    with_rows = retrieval(x, y, metric=metric, groups=groups, candidates="rows")
    assert len(with_rows.x_to_y.ranks) == len(x)
    assert with_rows.y_to_x.recall[10] < result.y_to_x.recall[10]


def test_different_images_of_a_group_are_different_candidates() -> None:
    x, y = noisy(60)
    groups = np.arange(60) // 3
    one, two = (retrieval(x, y, groups=groups, candidates=name) for name in ("items", "rows"))
    assert one.x_to_y.ranks.equal(two.x_to_y.ranks)
    assert one.y_to_x.ranks.equal(two.y_to_x.ranks)
    with pytest.raises(ValueError, match=r"candidates must be one of \('items', 'rows'\), got 'images'"):
        retrieval(x, y, groups=groups, candidates="images")


@pytest.mark.parametrize("scale", [1e200, 1e-200])
@pytest.mark.parametrize("metric", METRICS)
def test_squares_that_leave_float64_change_nothing(metric: str, scale: float) -> None:
    x, y = noisy()
    scaled = retrieval(scale * x, scale * y, metric=metric)
    assert scaled.x_to_y.ranks.equal(retrieval(x, y, metric=metric).x_to_y.ranks)
    assert information_imbalance(scale * x, y, metric=metric) == information_imbalance(x, y, metric=metric)


@tiled
@pytest.mark.parametrize("metric", METRICS)
def test_long_rows_and_far_means(metric: str) -> None:
    """A bound for all rows would be useless beside one long row, and one of uncentred rows far from zero."""
    x, y = noisy()
    x[3] *= 1e8
    y[5] *= 1e8
    result = retrieval(x, y, metric=metric)
    assert result.x_to_y.ranks.tolist() == np.diagonal(places(scores(x, y, metric))).tolist()
    assert result.y_to_x.ranks.tolist() == np.diagonal(places(scores(y, x, metric))).tolist()
    x, y = (1e6 + 1e-3 * z for z in noisy())
    result = retrieval(x, y, metric=metric)
    assert result.x_to_y.ranks.tolist() == np.diagonal(places(scores(x, y, metric))).tolist()


def test_kinds_of_arrays(tmp_path: Path) -> None:
    x, y = (torch.from_numpy(z).bfloat16() for z in noisy())
    expected = retrieval(x.double().numpy(), y.double().numpy())
    np.save(tmp_path / "x.npy", x.float().numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert retrieval(x, y).y_to_x.ranks.equal(expected.y_to_x.ranks)
    assert retrieval(mapped, y).x_to_y.ranks.equal(expected.x_to_y.ranks)
    assert information_imbalance(mapped, y.double()) == information_imbalance(x, y)


def test_arguments_are_left_as_they_are() -> None:
    for metric in METRICS:
        (x, y), (one, two) = noisy(), noisy()
        retrieval(x, y, metric=metric, groups=np.arange(120) // 2)
        information_imbalance(x, y, metric=metric)
        assert np.array_equal(x, one)
        assert np.array_equal(y, two)


def test_memory_is_of_tiles() -> None:
    script = """
import json, pathlib, re, sys
import numpy as np
from modalign.metrics import information_imbalance, retrieval
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
x = np.random.default_rng(0).normal(size=(7000, 8)).astype(np.float32)
information_imbalance(x[:99], x[:99]), retrieval(x[:99], x[:99])
base = peak()
retrieval(x, x), retrieval(x, x, metric="euclidean", groups=np.arange(7000) // 4), information_imbalance(x, x)
print(json.dumps(peak() - base))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(run.stdout) < 110  # 40 MB; the matrix alone has 374


def test_mistakes() -> None:
    x = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(ValueError, match="one space, got widths 3 and 2"):
        retrieval(x, x[:, :2])
    with pytest.raises(ValueError, match="retrieval: needs at least 2 rows, got 1"):
        retrieval(x[:1], x[:1])
    with pytest.raises(ValueError, match=r"k must be numbers from 1, got \(0,\)"):
        retrieval(x, x, k=(0,))
    for wrong in (5, (1.5,), (True,)):
        with pytest.raises(TypeError, match=r"retrieval: (each )?k must be (a sequence of integers|an integer), got"):
            retrieval(x, x, k=wrong)
    for wrong in (np.arange(9), np.linspace(0, 1, 10), [None] * 10):
        with pytest.raises(ValueError, match=r"retrieval: groups must be (\(10,\)|classes|given for every item)"):
            retrieval(x, x, groups=wrong)
    with pytest.raises(ValueError, match="at least 3 rows, got 2"):
        information_imbalance(x[:2], x[:2])
    with pytest.raises(ValueError, match=r"got \(10, 3\) and \(9, 3\)"):
        information_imbalance(x, x[:9])
    with pytest.raises(ValueError, match="metric must be one of"):
        retrieval(x, x, metric="l1")
    with pytest.raises(ValueError, match=r"retrieval: y must be finite, got NaN or inf in rows \[2\]"):
        retrieval(x, np.where(np.arange(10)[:, None] == 2, np.nan, x))
