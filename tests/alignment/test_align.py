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
from modalign.alignment.intervals import population_interval, random_parts, within_part
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
    assert beyond.kind == "relabelled within groups"


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


def test_a_metric_in_place_of_a_similarity_is_told_where_it_belongs() -> None:
    with pytest.raises(ValueError, match=r"got 'cka'; write metrics='cka'"):
        align(*pair(50), k=3, metric="cka")
    with pytest.raises(ValueError, match=r"got 'cosin'; did you mean cosine\?"):
        align(*pair(50), k=3, metric="cosin")
    with pytest.raises(ValueError, match=r"got 'mutualknn'; did you mean mutual_knn\?"):
        align(*pair(50), "mutualknn", k=3)


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


def test_few_items_have_no_interval() -> None:
    result = align(*pair(60), ["mutual_knn", "cka"], k=5)
    assert all(score.interval == "none" for score in result.scores)
    assert sum("no intervals" in note for note in result.notes) == 1
    assert "note: no intervals" in repr(result)


def test_wide_representations_have_the_intervals_that_a_quarter_has() -> None:
    rng = np.random.default_rng(0)
    result = align(rng.normal(size=(200, 80)), rng.normal(size=(200, 90)), ["cca", "cka"], k=5, null="none")
    assert result["cca"].low is None
    assert result["cka"].low is not None
    assert any("no interval for cca, which is not defined for a quarter of the items" in note for note in result.notes)


def test_a_metric_that_no_quarter_has_leaves_no_interval() -> None:
    rng = np.random.default_rng(0)
    result = align(rng.normal(size=(200, 80)), rng.normal(size=(200, 90)), ["cca"], k=5, null="none")
    assert result["cca"].low is None


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


def test_parts_of_a_graph_are_the_graphs_of_the_parts() -> None:
    x, _ = pair(300)
    lists = torch.as_tensor(modalign.knn(x, 100).indices)
    for part in random_parts(300, 4, repeats=2):
        kept = part == 1
        expected = torch.as_tensor(modalign.knn(x[kept.numpy()], 6).indices)
        assert torch.equal(within_part(lists, kept, 6), expected)
    short = within_part(lists[:, :8], kept, 6)
    assert short.shape == expected.shape
    assert bool((short.sort(1).values.diff(dim=1) > 0).all())
    assert not bool((short == torch.arange(len(short))[:, None]).any())


def test_parts_keep_groups_together() -> None:
    groups = torch.arange(90) // 3
    for part in random_parts(90, 2, groups=groups, repeats=3):
        assert all(len(set(part[groups == group].tolist())) == 1 for group in range(30))


def test_interval_of_a_mean() -> None:
    """The variance of a mean is known, so its interval is the textbook one."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=400))
    splits = [
        [[float(values[part == number].mean()) for number in range(parts)] for part in random_parts(400, parts, 1)]
        for parts in (2, 4)
    ]
    low, high = population_interval(float(values.mean()), *splits)
    assert (high - low) / 2 == pytest.approx(2.06 * float(values.std()) / 20, rel=0.35)


def test_no_interval_leaves_what_a_score_can_be() -> None:
    x, y = (np.random.default_rng(seed).normal(size=(300, 6)) for seed in (0, 1))
    result = align(x, y, "all", null="none")
    for score in result.scores:
        least, most = metrics.METRICS[score.metric].range
        assert score.low is not None, score.metric
        assert least <= score.low <= score.value <= score.high <= most, score.metric
    assert result["unbiased_cka"].low < 0
    assert population_interval(0.01, [[0.0, 0.3]] * 5, None, within=(0, 1))[0] == 0
    assert population_interval(0.99, [[0.7, 1.0]] * 5, None, within=(0, 1))[1] == 1


def test_mistakes() -> None:
    x, y = pair(100)
    for options, message in (
        ({"metrics": "cke"}, "metrics must be among mutual_knn, .* got 'cke'"),
        ({"metrics": ["cka", "cka"]}, "different names"),
        ({"null": "no"}, "null must be one of"),
        ({"groups": np.arange(100), "within": np.arange(100)}, "give one of the two"),
        ({"sample": 5, "tolerance": 0.1}, "give sample or tolerance, got both"),
        ({"within": np.arange(99)}, r"within must be \(100,\), one for each item, got \(99,\)"),
        ({"confidence": 1.5}, "confidence must be between 0 and 1"),
        ({"k": 100}, "k must be between 1 and 99 for 100 items, got 100"),
        ({"metrics": ["cknna"], "sample": 50}, "cknna need the graphs of all items"),
        ({"sample": 50, "groups": np.arange(100) // 3}, "need groups of one size, got 1 to 3 items"),
        ({"sample": 50, "size_curve": True}, "size_curve needs the graphs of all items"),
        ({"ids": (["a"] * 100, list(range(100)))}, "ids must be different, got 'a' twice in x"),
        ({"ids": (list(range(99)), list(range(100)))}, "ids must name every row of x, got 99 for 100 rows"),
        ({"ids": (list(range(100)), list(range(200, 300)))}, "share at least 4 ids, got 0"),
        ({"relabellings": 5, "null": "relabelled"}, "relabellings must be at least 19, got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            align(x, y, **{"k": 4} | options)
    with pytest.raises(ValueError, match="align: groups must be classes, got 100 different numbers"):
        align(x, y, groups=np.linspace(0, 1, 100))
    with pytest.raises(ValueError, match="same items in one order, got 100 and 90 rows; give ids="):
        align(x, y[:90])
    with pytest.raises(ValueError, match=r"every layer must hold the same items, got \[100, 90\] rows in ys"):
        align_layers([x], [y, y[:90]])
    with pytest.raises(ValueError, match="does not vary"):
        align(x, np.ones((100, 3)), ["cka"])
    with pytest.raises(ValueError, match=r"metric_name must be among mutual_knn, .*, got 'rsa'"):
        align_layers([x], [y], "rsa")
    y[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN or inf in rows \[3\]"):
        align(x, y)


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


def test_a_part_without_a_score_costs_the_interval_alone() -> None:
    rng = np.random.default_rng(0)
    x, rare, few = rng.normal(size=(200, 3)), np.zeros((200, 1)), np.zeros((200, 1))
    rare[[6, 7]] = 1
    few[:62] = rng.normal(size=(62, 1))  # 0.48 of all distances are 0, and more than half in some part
    for y, name in ((rare, "cka"), (few, "rbf_cka")):
        result = align(x, y, ["mutual_knn", name], k=5, relabellings=19)
        assert result[name].low is None, name
        assert any(
            f"no interval for {name}, which is not defined for a part of the items: " in note for note in result.notes
        )
        assert result["mutual_knn"].low is not None


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


def test_options_of_layers_are_checked() -> None:
    x, y = pair(60)
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 7"):
        align_layers([x], [y], k=3, confidence=7)
    with pytest.raises(ValueError, match="relabellings must be at least 19, got -3"):
        align_layers([x], [y], k=3, relabellings=-3)


def test_a_neighbour_count_or_ids_of_the_wrong_kind() -> None:
    x, y = pair(60)
    for k in ("3", None, 2.0, True):
        with pytest.raises(TypeError, match="k must be an integer, got "):
            align(x, y, k=k)
    for options in ({}, {"sample": 20}):
        with pytest.raises(ValueError, match="k must be between 1 and 59 for 60 items, got 60"):
            align(x, y, k=60, **options)
    with pytest.raises(ValueError, match="metrics must name at least one"):
        align(x, y, [])
    with pytest.raises(ValueError, match="got 1 lists"):
        align(x, y, ids=(range(60),))
    result = align(x, y, ["cka"], k=3, ids=(torch.arange(60), np.arange(60)), null="none")
    assert result.settings["n"] == 60


@pytest.mark.parametrize("metrics", ["all", ["mutual_knn", "cka"]])
def test_a_metric_of_neighbours_that_does_not_exist_is_refused(metrics: object) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(ValueError, match=r"metric must be one of .*, got 'q'"):
        modalign.align(x, x, metrics, k=3, metric="q")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metrics": None}, TypeError, "align: metrics must be a name, a list of names, or 'all', got None"),
        ({"metrics": [["cka"]]}, TypeError, "align: metrics must be a name, a list of names"),
        ({"num_threads": 0}, ValueError, "align: num_threads must be at least 1, got 0"),
        ({"max_memory": 0}, ValueError, "align: max_memory must be at least one byte, got 0"),
        ({"max_memory": "much"}, ValueError, "align: max_memory must be a number of B, KB"),
        ({"metric": "cosin"}, ValueError, "align: metric must be one of"),
    ],
)
def test_options_are_refused_in_the_name_of_align(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        align(*pair(30), **options)


@pytest.mark.parametrize(
    ("dtype", "advice"), [("M8[s]", "int64"), ("m8[s]", "int64"), ("U20", "float64"), ("S20", "float64")]
)
def test_rows_of_text_and_of_times_are_refused_with_the_line_to_write(dtype: str, advice: str) -> None:
    x, y = pair(30)
    with pytest.raises(TypeError, match=rf"write x\.astype\(np\.{advice}\) if"):
        align(x, y.astype(np.int64).astype(dtype))
