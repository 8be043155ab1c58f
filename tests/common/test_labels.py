"""Labels mean the same whatever holds them, at every door that takes classes, groups or names of rows."""

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import modalign
from modalign.common.labels import entries_of, label_array, label_tensor, label_tensors
from modalign.data import own
from modalign.experiments.advice import advise
from modalign.information import co_information, mutual_information, pid, regime

N = 60
RNG = np.random.default_rng(0)
CODES = np.arange(N) % 3
X, Y = RNG.normal(size=(2, N, 4)) + CODES[:, None]
TEXT = ["ant", "bee", "cat"] * 20
ALIKE: dict[str, Any] = {
    "list of text": TEXT,
    "tuple": tuple(TEXT),
    "str_": np.array(TEXT),
    "StringDType": np.array(TEXT, dtype=np.dtypes.StringDType()) if hasattr(np.dtypes, "StringDType") else TEXT,
    "objects": np.array(TEXT, object),
    "bytes": np.array([text.encode() for text in TEXT]),
    "list of bytes": [text.encode() for text in TEXT],
    "Series": pd.Series(TEXT),
    "string": pd.Series(TEXT, dtype="string"),
    "Categorical": pd.Categorical(TEXT),
    "category": pd.Series(TEXT, dtype="category"),
    "Index": pd.Index(TEXT),
    "intervals": pd.cut(CODES, 3),
    "one column": pd.DataFrame({"label": TEXT}),
    "Arrow": pa.array(TEXT),
    "Arrow chunks": pa.chunked_array([TEXT[:7], TEXT[7:]]),
    "Arrow dictionary": pa.array(TEXT).dictionary_encode(),
    "begins with a byte-order mark": ["\ufeffant", *TEXT[1:]],
    "integers": CODES,
    "range": [*range(3)] * 20,
    "int8": CODES.astype(np.int8),
    "uint64": CODES.astype(np.uint64),
    "big endian": CODES.astype(">i4"),
    "float32": CODES.astype(np.float32),
    "list of floats": [0.0, 1.0, 2.0] * 20,
    "mixed numbers": [0, 1.0, np.int64(2)] * 20,
    "decimals": [decimal.Decimal(code) for code in CODES.tolist()],
    "column": CODES[:, None],
    "Int64": pd.Series(CODES, dtype="Int64"),
    "integer categories": pd.Categorical(CODES),
    "Arrow integers": pa.array(CODES),
    "nothing masked": np.ma.array(CODES),
    "tensor": torch.from_numpy(CODES),
    "float tensor": torch.from_numpy(CODES).float().requires_grad_(),
    "bfloat16": torch.from_numpy(CODES).bfloat16(),
    "dates": [datetime.date(2026, 1, 1 + code) for code in CODES.tolist()],
    "datetime64": np.array(["2026-01-01", "2026-01-02", "2026-01-03"] * 20, "M8[D]"),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_labels_of_every_kind_are_the_same_classes(kind: str) -> None:
    assert torch.unique(label_tensor("f: y", ALIKE[kind], N), return_inverse=True)[1].tolist() == CODES.tolist()


@pytest.mark.parametrize("kind", ["list of text", "Categorical", "float32", "bytes", "bfloat16", "Arrow", "Int64"])
def test_every_function_takes_labels_alike(kind: str) -> None:
    labels = ALIKE[kind]
    assert mutual_information(X, labels) == mutual_information(X, CODES)
    assert np.array_equal(modalign.knn(X, 3, groups=labels).indices, modalign.knn(X, 3, groups=CODES).indices)
    options: dict[str, Any] = {"k": 3, "relabellings": 19, "intervals": False}
    for name in ("groups", "within"):
        of_labels, of_codes = (
            modalign.align(X, Y, ["mutual_knn"], **options, **{name: values})["mutual_knn"]
            for values in (labels, CODES)
        )
        assert (of_labels.value, of_labels.null) == (of_codes.value, of_codes.null)


def test_every_estimate_takes_text() -> None:
    for estimate in (lambda y: pid(X, Y, y, resamples=0).synergy, lambda y: co_information(X, Y, y)):
        assert estimate(TEXT) == estimate(CODES)
    assert regime(X, Y, TEXT) == regime(X, Y, CODES)
    assert mutual_information(TEXT, TEXT) == mutual_information(CODES, CODES)  # a modality of codes
    assert advise(X, Y, TEXT).sentences() == advise(X, Y, CODES).sentences()


@pytest.mark.parametrize(("seed", "error"), [(1.5, TypeError), ("a", TypeError), (2**33, ValueError), (-1, ValueError)])
def test_seeds_that_no_generator_takes_are_refused_by_name(seed: Any, error: type[Exception]) -> None:
    calls = {
        "pid": lambda seed: pid(X, Y, TEXT, resamples=0, seed=seed).synergy,
        "mutual_information": lambda seed: mutual_information(X, TEXT, seed=seed),
        "co_information": lambda seed: co_information(X, Y, TEXT, seed=seed),
        "regime": lambda seed: regime(X, Y, TEXT, seed=seed),
        "advise": lambda seed: advise(X, Y, TEXT, seed=seed).information.synergy,
        "own": lambda seed: own(X, Y, TEXT, seed=seed).fingerprint(),
    }
    for name, call in calls.items():
        if name != "own" or seed != 2**33:  # NumPy's generator takes larger seeds
            with pytest.raises(error, match=f"{name}: seed must be"):
                call(seed)
        if seed == -1 and name != "advise":
            assert call(np.int64(3)) == call(3)


def test_truth_values_are_two_classes() -> None:
    for labels in ([True, False], np.array([True, False]), torch.tensor([True, False]), pd.array([True, False])):
        assert label_tensor("f: y", labels).tolist() == [1, 0]


def test_two_lists_of_labels_are_numbered_alike() -> None:
    first, second = label_tensors({"f: a": ["b", "d"], "f: b": ["a", "d"]})
    assert (first.tolist(), second.tolist()) == ([1, 2], [0, 2])
    with pytest.raises(TypeError, match="f: a and f: b must be labels of one kind, got text and numbers"):
        label_tensors({"f: a": ["b"], "f: b": [1]})
    x = np.eye(4)
    neighbours = modalign.knn(x, 1, queries=x[:2], groups=["b", "b", "a", "a"], query_groups=["a", "b"])
    assert neighbours.indices.ravel().tolist() == [0, 2]


MISSING: dict[str, Any] = {
    "None": [*TEXT[:-1], None],
    "NaN": [*TEXT[:-1], float("nan")],
    "NaN as NumPy writes it": np.array([*TEXT[:-1], np.nan]),
    "NaN among objects": np.array([*TEXT[:-1], np.nan], object),
    "blank": [*TEXT[:-1], ""],
    "spaces": [*TEXT[:-1], "  "],
    "NA": pd.Series([*TEXT[:-1], pd.NA], dtype="string"),
    "Series": pd.Series([*TEXT[:-1], None]),
    "Categorical": pd.Categorical([*TEXT[:-1], None]),
    "Int64": pd.Series([*CODES[:-1], pd.NA], dtype="Int64"),
    "integers with None": [*CODES[:-1].tolist(), None],
    "float NaN": np.where(np.arange(N) == N - 1, np.nan, CODES),
    "tensor": torch.where(torch.arange(N) == N - 1, torch.nan, 1.0),
    "masked": np.ma.array(CODES, mask=np.arange(N) == N - 1),
    "masked text": np.ma.array(TEXT, mask=np.arange(N) == N - 1),
    "Arrow": pa.array([*TEXT[:-1], None]),
    "Arrow integers": pa.array([*CODES[:-1].tolist(), None]),
    "NaT": np.array(["2026-01-01"] * (N - 1) + ["NaT"], "M8[D]"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_missing_labels_are_refused_with_their_rows(kind: str) -> None:
    with pytest.raises(ValueError, match=r"f: y must be given for every item, got none .* in rows \[59\] .* drop"):
        label_tensor("f: y", MISSING[kind])


@pytest.mark.parametrize("kind", ["None", "NaN among objects", "Int64", "blank", "masked", "Categorical"])
def test_every_function_names_itself_and_the_rows(kind: str) -> None:
    labels = MISSING[kind]
    ids = [*map(str, range(N))]
    doors = {
        "pid: y": lambda: pid(X, Y, labels),
        "mutual_information: y": lambda: mutual_information(X, labels),
        "regime: y": lambda: regime(X, Y, labels),
        "advise: labels": lambda: advise(X, Y, labels),
        "own: split": lambda: own(X, Y, TEXT, split=labels),
        "knn: groups": lambda: modalign.knn(X, 3, groups=labels),
        "knn: query_groups": lambda: modalign.knn(X, 3, queries=X, groups=labels[:], query_groups=labels),
        "align: groups": lambda: modalign.align(X, Y, k=3, groups=labels),
        "align: within": lambda: modalign.align(X, Y, k=3, within=labels),
        "align: ids of y": lambda: modalign.align(X, Y, k=3, ids=(ids, labels)),
    }
    for name, call in doors.items():
        with pytest.raises(ValueError, match=f"^{name.replace('query_', '')} must be given .* rows \\[59\\]"):
            call()


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            X[:, 0],
            ValueError,
            "must be classes, got 60 different numbers such as .*; cut them into bins, such as pandas",
        ),
        ([0.0, np.inf], ValueError, r"must be finite, got inf in rows \[1\]"),
        (np.array([2.0**60, 1]), ValueError, r"holds whole numbers beyond 2\^53 as float64"),
        (["a", 1], TypeError, "must be all text or all numbers, one for each item, got int, str"),
        ([2**70, 1], TypeError, "must be whole numbers of 64 bits or text"),
        (np.eye(3), ValueError, r"must be \(n,\), one for each item, got \(3, 3\); of one-hot rows give .* argmax"),
        ([[1], [1, 2]], TypeError, r"must be a list or an array, one entry for each item, got list \("),
        ("labels.txt", TypeError, "got 'labels.txt'; a file is read by modalign.files.labels.read_labels"),
        ({"a": 1}, TypeError, "must be a list or an array, one entry for each item, got dict"),
        ({1, 2}, TypeError, "got set"),
        (None, TypeError, "got NoneType"),
        (3, TypeError, "got int"),
        (iter([1]), TypeError, "got list_iterator"),
        (np.array([1j]), TypeError, "must be text or whole numbers, one for each item, got complex128"),
        (np.array([b"\xff"]), ValueError, "must be text, got bytes that are no UTF-8"),
        (torch.eye(3).to_sparse(), TypeError, "must be a dense tensor"),
        ([object()], TypeError, "must be all text or all numbers, one for each item, got object"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(labels: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"f: y .*{message}"):
        label_array("f: y", labels)


def test_names_may_be_any_numbers_and_text_that_reads_as_missing_elsewhere_stays() -> None:
    assert entries_of("f: ids", [0.5, 1.5]).tolist() == [0.5, 1.5]
    assert label_array("f: y", ["NA", "null", "None"]).tolist() == ["NA", "null", "None"]


def test_ids_of_text_and_of_numbers_do_not_match() -> None:
    with pytest.raises(TypeError, match="align: ids of x and y must be of one kind, got text for x and numbers for y"):
        modalign.align(X, Y, k=3, ids=([*map(str, range(N))], [*range(N)]))
