"""What align and align_layers refuse, and the line to write instead."""

import numpy as np
import pytest
import torch
from tests.alignment.test_align import pair

import modalign
from modalign import align, align_layers


def test_a_metric_in_place_of_a_similarity_is_told_where_it_belongs() -> None:
    with pytest.raises(ValueError, match=r"got 'cka'; write metrics='cka'"):
        align(*pair(50), k=3, metric="cka")
    with pytest.raises(ValueError, match=r"got 'cosin'; did you mean cosine\?"):
        align(*pair(50), k=3, metric="cosin")
    with pytest.raises(ValueError, match=r"got 'mutualknn'; did you mean mutual_knn\?"):
        align(*pair(50), "mutualknn", k=3)


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
        ({"metrics": ["cknna"], "sample": 50}, "cknna needs the graphs of all items"),
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


def test_the_largest_k_is_named() -> None:
    rng = np.random.default_rng(0)
    x, y, groups = rng.normal(size=(60, 4)), rng.normal(size=(60, 4)), np.r_[np.zeros(20, int), np.arange(1, 41)]
    for options, message in (
        ({"k": 41, "groups": groups}, "align: k must be at most 40, as the largest of the groups leaves no more"),
        ({"k": 40, "groups": groups, "size_curve": True}, "size_curve needs k below the 40 items that may be neigh"),
        ({"k": 59, "size_curve": True}, "size_curve needs k below the 59 items that may be neighbours, got 59"),
    ):
        with pytest.raises(ValueError, match=message):
            align(x, y, ["mutual_knn"], **options)
    curve = align(x, y, ["mutual_knn"], k=17, groups=groups, size_curve=True, null="none")
    assert curve.curves["size"]["values"][-1] == curve["mutual_knn"].value
