"""Tests of ``align`` and ``align_layers``: metrics, intervals, nulls, samples, groups, ids, files and errors."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import modalign
from modalign import align, align_layers, load_alignment, metrics
from modalign.alignment import intervals
from modalign.alignment.nulls import random_relabellings
from modalign.metrics.pair_tables import relabelled_pairs

LISTS = ["mutual_knn", "jaccard_knn", "rank_similarity", "lcs_knn", "edit_distance_knn"]


def pair(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 10))
    return x, np.tanh(x @ np.random.default_rng(5).normal(size=(10, 7))) + 0.5 * rng.normal(size=(n, 7))


def metrics_of_all() -> set[str]:
    """Return the metrics that "all" stands for: variants are left out."""
    return {name for name, metric in metrics.METRICS.items() if not metric.options}


def test_all_metrics_are_the_functions_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for parts in (2, 4):
        monkeypatch.setitem(intervals.SPLITS, parts, 10)
    x, y = pair(200)
    x = x[:, :7]
    result = align(x, y, "all", k=5, relabellings=19)
    assert {score.metric for score in result.scores} == metrics_of_all()
    for score in result.scores:
        function = getattr(metrics, score.metric)
        expected = function(x, y, 5) if metrics.METRICS[score.metric].needs in ("lists", "graphs") else function(x, y)
        if score.metric == "information_imbalance":
            expected = metrics.information_imbalance(x, y, metric="cosine").x_to_y
        if score.metric == "retrieval":
            expected = expected.x_to_y.recall[1]
        assert score.value == pytest.approx(expected, abs=1e-12), score.metric
        assert score.low is not None
        assert score.low < score.value < score.high
        assert score.null is not None
        if score.metric == "retrieval":  # of two spaces
            continue
        assert score.null.p <= 0.05
        towards_best = (score.value - score.null.mean) * (metrics.METRICS[score.metric].best - score.null.mean)
        assert towards_best > 0


def test_the_same_seed_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for parts in (2, 4):  # enough to see whether bits repeat
        monkeypatch.setitem(intervals.SPLITS, parts, 4)
    x, y = pair(200)
    first, second = (align(x, y, "all", k=3, relabellings=19, seed=4).to_frame() for _ in range(2))
    drop = ["seconds"]
    assert first.drop(columns=drop).equals(second.drop(columns=drop))


def test_unrelated_is_not_significant() -> None:
    x, _ = pair()
    result = align(x, np.random.default_rng(9).normal(size=(400, 6)), k=5)
    for score in result.scores:
        assert score.null is not None
        assert score.null.p > 0.001, score
        assert score.null.calibrated < 0.05


def test_groups_are_averaged_within_and_their_rows_no_neighbours() -> None:
    x, y = pair(300)
    groups = np.repeat(np.arange(150), 2)[:300]
    groups[:30] = 1000  # a large group counts once
    whole = align(x, y, ["mutual_knn"], k=5, groups=groups, relabellings=19)
    result = whole["mutual_knn"]
    graphs = [modalign.knn(rows, 5, groups=groups).indices for rows in (x, y)]
    shares = [len({*a} & {*b}) / 5 for a, b in zip(*(graph.tolist() for graph in graphs), strict=True)]
    by_group = [
        np.mean([s for s, g in zip(shares, groups, strict=True) if g == group]) for group in set(groups.tolist())
    ]
    assert result.value == pytest.approx(np.mean(by_group))
    assert whole.curves["k"]["value"][-1] == pytest.approx(result.value)
    assert result.null is not None
    assert result.null.kind == "relabelled"


def test_within_takes_what_the_classes_explain() -> None:
    """Two views that share only their classes are not aligned beyond the classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 400)
    x, y = (4 * rng.normal(size=(8, 6))[labels] + rng.normal(size=(400, 6)) for _ in range(2))
    plain = align(x, y, ["mutual_knn"], k=5)["mutual_knn"].null
    beyond = align(x, y, ["mutual_knn"], k=5, within=labels, relabellings=99)["mutual_knn"].null
    assert plain is not None
    assert beyond is not None
    assert plain.p < 1e-6
    assert beyond.p > 0.01
    assert beyond.kind == "relabelled within classes"


@pytest.mark.parametrize("options", [{"sample": 150}, {"tolerance": 0.03}])
def test_samples(options: dict[str, float]) -> None:
    x, y = pair(1500)
    result = align(x, y, k=5, **options)
    assert [score.metric for score in result.scores] == ["mutual_knn", "jaccard_knn", "cka", "unbiased_cka"]
    score = result["mutual_knn"]
    assert score.interval == "these items"
    assert score.rows < 1500
    truth = modalign.mutual_knn(x, y, 5)
    samples = [align(x, y, ["mutual_knn"], k=5, seed=seed, **options)["mutual_knn"] for seed in range(1, 20)]
    assert sum(drawn.low <= truth <= drawn.high for drawn in (score, *samples)) >= 17  # 19 of 20 in the mean
    assert result["cka"].value == pytest.approx(modalign.cka(x, y))


def test_a_large_sample_is_everything() -> None:
    x, y = pair(200)
    sampled, whole = (align(x, y, LISTS, k=4, null="none", **options) for options in ({"sample": 200}, {}))
    for score, expected in zip(sampled.scores, whole.scores, strict=True):
        assert score.value == pytest.approx(expected.value, abs=1e-12)
        assert score.low == score.high == score.value


def test_ids_pair_rows_by_name() -> None:
    x, y = pair(200)
    order = np.random.default_rng(1).permutation(200)[:150]
    names = [f"item {i}" for i in range(200)]
    result = align(x, y[order], ["mutual_knn", "cka"], k=4, ids=(names, [names[i] for i in order]), null="none")
    kept = np.sort(order)
    assert result["mutual_knn"].value == pytest.approx(modalign.mutual_knn(x[kept], y[kept], 4))
    assert result["cka"].value == pytest.approx(modalign.cka(x[kept], y[kept]))
    assert result.settings["n"] == 150


def test_files_are_what_arrays_are(tmp_path: Path) -> None:
    x, y = (rows.astype(np.float32) for rows in pair(300))
    for name, rows in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", rows)
    files = align(str(tmp_path / "x.npy"), tmp_path / "y.npy", k=4)
    arrays = align(torch.from_numpy(x), y, k=4)
    for score, expected in zip(files.scores, arrays.scores, strict=True):
        assert (score.value, score.low, score.null) == (expected.value, expected.low, expected.null)


def test_curves_and_facts() -> None:
    x, y = pair(300)
    x[:6] = x[6]
    result = align(x, y, ["mutual_knn"], k=4, size_curve=True, null="none")
    assert result.curves["k"]["value"][-1] == pytest.approx(result["mutual_knn"].value)
    assert result.curves["size"]["sizes"][-1] == 300
    assert result.curves["size"]["values"][-1] == pytest.approx(result["mutual_knn"].value)
    assert result.facts["duplicates"]["x"] == {"items": 7, "groups": 1, "largest": 7}
    assert any("have an exact copy" in note for note in result.notes)
    assert result.facts["graphs"]["x"].startswith("exact: 300 rows")


def test_rows_without_a_direction_are_named() -> None:
    """Zero rows in the same places of x and y look like alignment, so a note reports them."""
    x, y = pair(300)
    x[:9], y[3:5] = 0, 0
    result = align(x, y, ["mutual_knn"], k=4, null="none")
    assert result.facts["zero_rows"] == {"x": 9, "y": 2}
    assert any(note.startswith("9 rows of x are all zero and have no direction") for note in result.notes)
    assert not any("all zero" in note for note in align(x, y, ["mutual_knn"], k=4, metric="dot", null="none").notes)


def test_groups_and_classes_may_have_names() -> None:
    x, y = pair(300)
    numbers = np.arange(300) // 2
    names = [f"item {number}" for number in numbers]
    for option in ("groups", "within"):
        numbered, named = (
            align(x, y, ["mutual_knn", "cka"], k=4, relabellings=39, **{option: values}) for values in (numbers, names)
        )
        assert [score.value for score in numbered.scores] == [score.value for score in named.scores]


def test_saved_and_read_again(tmp_path: Path) -> None:
    result = align(*pair(200), k=3)
    read = load_alignment(result.save(tmp_path / "a.json"))
    assert repr(read) == repr(result)
    assert read.provenance["versions"] == result.provenance["versions"]
    import pandas as pd

    assert pd.read_parquet(result.save(tmp_path / "a.parquet"))["value"].tolist() == [s.value for s in result.scores]
    with pytest.raises(ValueError, match=r"end in \.json, \.parquet or \.html"):
        result.save(tmp_path / "a.txt")
    assert result.save(tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "a-figures" / "scores.svg").is_file()
    (tmp_path / "b.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(ValueError, match=r"must be a file that Alignment\.save wrote"):
        load_alignment(tmp_path / "b.json")
    with pytest.raises(KeyError, match="no score of 'cca': there are mutual_knn"):
        result["cca"]


def test_layers() -> None:
    x, y = pair(250)
    xs, ys = [x, x[:, :3], np.random.default_rng(3).normal(size=(250, 4))], [y, y[:, :2]]
    result = align_layers(xs, ys, k=5, relabellings=50)
    for (i, one), (j, two) in itertools.product(enumerate(xs), enumerate(ys)):
        assert result.matrix[i][j] == pytest.approx(modalign.mutual_knn(one, two, 5))
    assert result.best == (0, 0)
    assert result.null is not None
    assert result.null.p == 1 / 51
    single = align(x, y, ["mutual_knn"], k=5)["mutual_knn"].null
    assert single is not None
    assert result.null.threshold > single.threshold  # six looks, not one
    stacked = align_layers(np.stack([x, 2 * x, x], 1), torch.from_numpy(np.stack([y, y], 1)), "cka", relabellings=0)
    assert np.array(stacked.matrix).shape == (3, 2)
    assert stacked.value == pytest.approx(modalign.cka(x, y))
    assert "highest" in repr(stacked)


def test_shared_relabelling_is_that_of_each_pair() -> None:
    x, y = pair(120)
    slow = align_layers([x, x[:, :4]], [y], "jaccard_knn", k=3, relabellings=19)
    assert slow.null is not None
    assert slow.null.p == 0.05
    quick, by_hand = (align_layers([x], [y], name, k=3, relabellings=30).null for name in ("mutual_knn", "lcs_knn"))
    assert quick is not None
    assert by_hand is not None
    assert quick.mean >= by_hand.mean  # a common subsequence is shared neighbours


def test_what_would_take_too_long_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 200, 6))
    monkeypatch.setattr("modalign.alignment.scoring.AFFORDED", 0.01)
    result = modalign.align(x, y, ["mutual_knn", "rsa"], k=5)
    assert result["mutual_knn"].low is not None
    assert result["rsa"].low is None
    assert result["rsa"].null is None
    assert any("no interval for rsa, which would take too long" in note for note in result.notes)
    assert any("no null for rsa, which would take too long; give relabellings=39" in note for note in result.notes)
    monkeypatch.undo()
    result = modalign.align(x, y, ["rsa"], k=5)
    assert result["rsa"].low is not None
    assert result["rsa"].null is not None


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_relabelled_pairs_are_the_metrics_of_relabelled_rows(metric: str) -> None:
    n = 1100  # two tiles
    x, y = pair(n)
    y[1000:] = y[:100]  # ties
    y[:, 5] *= 3
    x = x[:, :7]
    direct = {
        "rsa": metrics.rsa, "rbf_cka": metrics.rbf_cka,
        "information_imbalance": lambda x, y: metrics.information_imbalance(x, y, metric=metric).x_to_y,
        "retrieval": lambda x, y: metrics.retrieval(x, y, k=(1,), metric=metric).x_to_y.recall[1],
    }  # fmt: skip
    names = list(direct) if metric == "cosine" else ["information_imbalance", "retrieval"]
    (s,) = random_relabellings(n, 1)
    for name in names:
        relabelled = relabelled_pairs(name, x, y, metric)
        # equal distances are ordered by another index
        tied = {"information_imbalance": 2 / n, "retrieval": 0.2}.get(name, 1e-12)
        assert relabelled(torch.arange(n)) == pytest.approx(direct[name](x, y), abs=1e-12), name
        assert relabelled(s) == pytest.approx(direct[name](x, y[s.numpy()]), abs=tied), name


def test_pair_metrics_take_metric_and_groups() -> None:
    x, y = pair(120)
    x = x[:, :7]
    groups = np.repeat(np.arange(40), 3)
    result = align(x, y, ["retrieval"], k=3, groups=groups, relabellings=19)["retrieval"]
    assert result.value == metrics.retrieval(x, y, k=(1,), groups=groups).x_to_y.recall[1]
    assert result.null.mean == pytest.approx(1 / 40, abs=0.05)
    dot = align(x, 5 * y, ["retrieval", "information_imbalance"], k=3, metric="dot", intervals=False, null="none")
    assert dot["retrieval"].value == metrics.retrieval(x, 5 * y, k=(1,), metric="dot").x_to_y.recall[1]
    assert dot["information_imbalance"].value == metrics.information_imbalance(x, 5 * y, metric="dot").x_to_y
    with pytest.raises(ValueError, match="information_imbalance: takes no groups"):
        align(x, y, ["information_imbalance"], k=3, groups=groups)


def test_all_are_those_that_are_defined() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 60)), rng.normal(size=(40, 1))
    result = align(x, y, "all", k=3, relabellings=19)
    left_out = metrics_of_all() - {score.metric for score in result.scores}
    assert left_out == {"cca", "pwcca", "linear_r2", "rsa", "retrieval"}
    for name in left_out - {"retrieval"}:
        assert any(note.startswith(f"no {name}: ") for note in result.notes), name
    with pytest.raises(ValueError, match="needs rows that vary"):
        align(x, y, ["mutual_knn", "rsa"], k=3)


def test_defaults_with_euclidean_neighbours_leave_out_cknna() -> None:
    result = align(*pair(60), k=3, metric="euclidean")
    assert [score.metric for score in result.scores] == ["mutual_knn", "jaccard_knn", "cka", "unbiased_cka"]
    assert any("no cknna" in note for note in result.notes)


def test_numpy_options_labels_of_strings_and_int8(tmp_path: Path) -> None:
    x, y = pair(60)
    names = [f"item {i // 2}" for i in range(60)]
    result = align(x, y, ["mutual_knn"], k=np.int64(3), confidence=np.float32(0.9), relabellings=np.int64(19))
    assert modalign.load_alignment(result.save(tmp_path / "a.json")).settings["k"] == 3
    ids = (list(range(60)), list(range(10, 70)))
    paired = align(x, y, ["mutual_knn"], k=3, groups=names, ids=ids, relabellings=19)
    assert paired.settings["n"] == 50
    assert "10 rows of x and 10 of y have no row of the same id on the other side and are left out" in paired.notes
    with pytest.raises(ValueError, match=r"groups must be \(60,\), one for each item, got \(61,\)"):
        align(x, y, k=3, groups=[*names, "more"], ids=ids)
    assert align(x, y, ["mutual_knn"], k=3, groups=names, sample=20)["mutual_knn"].low > 0
    assert align((10 * x).astype(np.int8), y, ["mutual_knn"], k=3)["mutual_knn"].value > 0.1


def test_chance_among_items_of_other_groups() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 60, 4))
    result = align(x, y, ["mutual_knn"], k=3, groups=np.arange(60) // 15, relabellings=400)
    assert result.curves["k"]["chance"][-1] == pytest.approx(3 / 45)
    assert result["mutual_knn"].null.mean == pytest.approx(3 / 45, abs=0.004)


def test_a_sample_has_no_null_and_its_interval_may_be_left_out() -> None:
    x, y = pair(100)
    assert align(x, y, ["mutual_knn"], k=3, sample=20, intervals=False)["mutual_knn"].low is None
    for options in ({"within": np.arange(100) // 50}, {"relabellings": 39}, {"null": "relabelled"}):
        with pytest.raises(ValueError, match="a sample has no null"):
            align(x, y, ["mutual_knn"], k=3, sample=20, **options)
        whole = align(x, y, ["mutual_knn", "cka"], k=3, sample=20, **options)["cka"]  # of all rows
        assert whole.null is not None
        assert whole.null.kind.startswith("closed form" if "relabellings" in options else "relabelled")
