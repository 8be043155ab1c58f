"""Rows and graphs come in as anything that holds numbers without doubt; the rest is refused with what to write."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

import modalign
from modalign import metrics
from modalign.alignment.preparation import prepare
from modalign.alignment.relabelling import kmeans_cells
from modalign.common.conversion import as_array, as_numpy
from modalign.common.tensors import as_indices, as_tensor
from modalign.files.rows import open_rows
from modalign.information import pid
from modalign.metrics.diagnostics import zero_rows
from modalign.metrics.edges import cknna_from_graphs, second_order_cosine_rows
from modalign.metrics.neighborhoods import neighborhood_scores, relabelled_overlap
from modalign.metrics.pair_tables import relabelled_pairs
from modalign.metrics.sums import moments_of_parts

N, D = 40, 4
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
IDS = (range(N), range(N))
LISTS = pa.array(list(X), pa.list_(pa.float32()))

# every door that takes rows
DOORS: dict[str, Callable[[Any], Any]] = {
    "knn": lambda x: modalign.knn(x, 3).indices,
    "knn of queries": lambda x: modalign.knn(X, 3, queries=x).indices,
    "knn by blocks": lambda x: modalign.knn(x, 3, block_size=16).indices,
    "align": lambda x: modalign.align(x, X, ["mutual_knn"], k=3, intervals=False, null="none")["mutual_knn"].value,
    "align y": lambda x: modalign.align(X, x, ["cka"], k=3, intervals=False, null="none")["cka"].value,
    "align by name": lambda x: (
        modalign.align(x, X, ["cka"], ids=(range(N), range(N)), intervals=False, null="none")["cka"].value
    ),
    "align_layers": lambda x: modalign.align_layers([x, X], [X], k=3, relabellings=0).matrix,
    "prepare": lambda x: np.asarray(read(prepare(x, "platonic"))),
    "open_rows": lambda x: open_rows(x).read(0, N),
    "kmeans_cells": lambda x: kmeans_cells(x, 3),
    "relabelled_pairs": lambda x: relabelled_pairs("rsa", x, X)(torch.arange(N)),
    "cknna_from_graphs": lambda x: cknna_from_graphs(x, X, *[modalign.knn(X, 3)] * 2),
    "second_order_cosine_rows": lambda x: second_order_cosine_rows(x, X, *[modalign.knn(X, 3)] * 2),
    "moments_of_parts": lambda x: [float(part.trace("x")) for part in moments_of_parts(x, X, np.arange(N) % 2)],
    "pid": lambda x: pid(x, X, np.arange(N) % 2, resamples=0).redundancy,
    "zero_rows": zero_rows,
    "duplicates": metrics.duplicates,
}
DOORS |= {
    name: lambda x, name=name: getattr(metrics, name)(x, X, k=3)
    for name in ("mutual_knn", "jaccard_knn", "rank_similarity", "lcs_knn", "edit_distance_knn", "cycle_knn", "cknna")
}
DOORS |= {
    name: lambda x, name=name: getattr(metrics, name)(x, X)
    for name in ("cka", "unbiased_cka", "rv", "procrustes", "cca", "svcca", "linear_r2", "cmd", "rsa", "rbf_cka")
}
DOORS |= {
    "second_order_cosine": lambda x: metrics.second_order_cosine(x, X, k=3),
    "information_imbalance": lambda x: metrics.information_imbalance(x, X),
    "retrieval": lambda x: metrics.retrieval(x, X).x_to_y.recall,
}


def read(rows: Any) -> Any:
    return rows.read(0, rows.shape[0]) if hasattr(rows, "read") else rows


# the same numbers as X
TAKEN: dict[str, Callable[[], Any]] = {
    "data frame": lambda: pd.DataFrame(X),
    "data frame of named columns": lambda: pd.DataFrame(X, columns=list("abcd"), index=np.arange(N)[::-1].copy()),
    "data frame of Arrow": lambda: pd.DataFrame(X).astype("float32[pyarrow]"),
    "data frame of one column": lambda: pd.DataFrame({"e": list(X)}),
    "Series of arrays": lambda: pd.Series(list(X)),
    "Arrow table": lambda: pa.table({str(i): X[:, i] for i in range(D)}),
    "Arrow table of lists": lambda: pa.table({"e": LISTS}),
    "Arrow column": lambda: pa.chunked_array([LISTS[:7], LISTS[7:]]),
    "Arrow array": lambda: LISTS,
    "Arrow batch": lambda: pa.RecordBatch.from_arrays(list(X.T), list("abcd")),
    "list of arrays": lambda: [*X],
    "list of lists": X.tolist,
    "list of tensors": lambda: list(torch.from_numpy(X)),
    "array of rows": lambda: pd.Series(list(X)).to_numpy(),
    "array of numbers as objects": lambda: X.astype(object),
    "matrix": lambda: np.matrix(X),
    "masked array without a mask": lambda: np.ma.array(X),
    "tensor that requires a gradient": lambda: torch.from_numpy(X.copy()).requires_grad_(),
}


def flat(value: Any) -> np.ndarray:
    if isinstance(value, (list, tuple)) or hasattr(value, "_asdict"):
        return np.concatenate([flat(part) for part in value])
    if isinstance(value, dict):
        return flat(list(value.values()))
    if hasattr(value, "__dataclass_fields__"):
        return flat([getattr(value, field) for field in value.__dataclass_fields__])
    return np.asarray(value, dtype=np.float64).ravel()


@pytest.mark.parametrize("kind", TAKEN)
def test_a_table_of_any_library_is_the_array_of_its_numbers(kind: str) -> None:
    array = as_array("x", TAKEN[kind]())
    np.testing.assert_array_equal(np.asarray(array), X)
    assert isinstance(array, torch.Tensor) == ("tensor" in kind)


@pytest.mark.parametrize("door", DOORS)
def test_every_door_takes_tables_of_any_library_with_the_values_of_the_array(door: str) -> None:
    expected = flat(DOORS[door](X))
    for kind in ("data frame", "Series of arrays"):
        np.testing.assert_array_equal(flat(DOORS[door](TAKEN[kind]())), expected, err_msg=kind)
    if door in ("open_rows", "knn of queries"):
        return
    bits = torch.from_numpy(X).bfloat16()
    rounded = flat(DOORS[door](bits.float().numpy()))
    np.testing.assert_allclose(flat(DOORS[door](bits)), rounded, rtol=1e-6)


MASKED = np.ma.array(np.where(np.arange(N)[:, None] == 3, 1e20, X), mask=np.arange(N * D).reshape(N, D) == 13)


@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_masked_sparse_missing_and_absent_values(door: str) -> None:
    with pytest.raises(ValueError, match=r"1 masked in row 3; write x\.filled\(value\)"):
        DOORS[door](MASKED)
    with pytest.raises(TypeError, match=r"dense, got a sparse csr_array.*x\.toarray\(\) \(160 numbers\)"):
        DOORS[door](sp.csr_array(X))
    with pytest.raises(TypeError, match=r"dense, got a sparse tensor \(sparse_coo\).*x\.to_dense\(\)"):
        DOORS[door](torch.from_numpy(X).to_sparse())
    with pytest.raises(TypeError, match="tensor on the meta device, which has a shape and no values"):
        DOORS[door](torch.empty(N, D, device="meta"))
    with pytest.raises(ValueError, match=r"a value in every row, got none in row 3; drop or fill"):
        DOORS[door](pd.DataFrame(np.where(np.arange(N)[:, None] == 3, np.nan, X)))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.uint32, np.uint64])
def test_integers_become_the_smallest_float_that_holds_all_of_their_dtype(dtype: type) -> None:
    largest = min(np.iinfo(dtype).max, 2**53 - 1)
    tensor = as_tensor("x", np.array([[largest, 3]], dtype))
    assert tensor.dtype == (torch.float32 if np.dtype(dtype).itemsize < 4 else torch.float64)
    assert tensor.tolist() == [[largest, 3]]
    assert torch.equal(open_rows(np.array([[largest, 3]], dtype)).read(0, 1), tensor)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("door", [door for door in DOORS if door not in ("knn of queries", "pid")])
def test_integers_have_the_values_of_the_floats_that_hold_them(door: str, dtype: type) -> None:
    whole = np.random.default_rng(1).integers(0, 255, (N, D)).astype(dtype)
    held = whole.astype(np.float32 if np.dtype(dtype).itemsize < 4 else np.float64)
    np.testing.assert_array_equal(flat(DOORS[door](whole)), flat(DOORS[door](held)))
    np.testing.assert_array_equal(flat(DOORS[door](torch.from_numpy(whole))), flat(DOORS[door](held)))


REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "text": (
        TypeError,
        "columns of numbers alone, got 'a' \\(String\\); write x\\[\\['b'\\]\\].to_numpy",
        lambda: pd.DataFrame({"a": ["u"], "b": [1]}),
    ),
    "categories": (TypeError, r"got 'a' \(Categorical\)", lambda: pd.DataFrame({"a": pd.Categorical(["u"]), "b": [1]})),
    "times": (TypeError, r"got 'a' \(Datetime", lambda: pd.DataFrame({"a": pd.to_datetime(["2020"]), "b": [1]})),
    "ids beside lists": (
        TypeError,
        r"got 'e' \(Object\); write x\[\['id'\]\]",
        lambda: pd.DataFrame({"id": range(N), "e": list(X)}),
    ),
    "missing integers": (
        ValueError,
        r"x\['a'\] must have a value .* none in row 1",
        lambda: pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [1, 2]}),
    ),
    "written index": (
        ValueError,
        "'Unnamed: 0', the row numbers that pandas wrote",
        lambda: pd.DataFrame({"Unnamed: 0": [0], "b": [1]}),
    ),
    "columns of one name": (TypeError, r"write x.to_numpy\(\)", lambda: pd.DataFrame(X, columns=list("aabb"))),
    "nulls": (ValueError, r"none in row 1", lambda: pa.chunked_array([[[1.0], None]])),
    "null numbers": (ValueError, r"no nulls, got nulls in rows \[1\]", lambda: pa.array([[1.0], [None]])),
    "ragged lists": (
        ValueError,
        r"one length, \(2,\) as row 0 has, got others in row 1; pad",
        lambda: [[1.0, 2.0], [1.0]],
    ),
    "ragged Arrow": (ValueError, r"lists of one length, 1 as in row 0", lambda: pa.array([[1.0], [1.0, 2.0]])),
    "ragged tensors": (ValueError, r"tensors of one shape, \(1,\) .* in row 1", lambda: [torch.ones(1), torch.ones(2)]),
    "None in a list": (TypeError, r"with None in row 0", lambda: [[1.0, None], [1.0, 2.0]]),
    "None in objects": (TypeError, r"objects with None in row 1", lambda: np.array([[1.0, 2.0], [None, 1.0]], object)),
    "nothing": (ValueError, "at least one row, got an empty list", list),
    "masked rows in a list": (
        ValueError,
        "1 masked in row 1",
        lambda: [np.ma.array([1.0, 2.0]), np.ma.array([1.0, 2.0], mask=[0, 1])],
    ),
    "sparse rows": (TypeError, "sparse csr_array", lambda: [sp.csr_array(X[:1]), sp.csr_array(X[:1])]),
    "text array": (
        TypeError,
        r"got <U3; write x.astype\(np.float64\) if it holds numbers as text",
        lambda: np.array([["1.5"]]),
    ),
    "complex": (TypeError, r"got complex64; write np.hstack", lambda: X + 1j),
    "booleans": (TypeError, r"got bool; write x.astype\(np.float32\)", lambda: X > 0),
    "long doubles": (TypeError, r"write x.astype\(np.float64\)", lambda: X.astype(np.longdouble)),
    "records": (TypeError, "structured_to_unstructured", lambda: np.zeros(3, [("a", "f4")])),
    "large integers": (ValueError, r"below 2\^53.*in rows \[1\]", lambda: np.array([[1], [2**53]])),
    "float8": (TypeError, r"write x.float\(\)", lambda: torch.ones(2, 2).to(torch.float8_e4m3fn)),
    "nested": (TypeError, "got a nested tensor", lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])),
    "dictionary": (TypeError, "got a dict of 'a'; pass one of its entries", lambda: {"a": X}),
    "generator": (TypeError, r"got a generator; write np.stack\(list\(x\)\)", lambda: (row for row in X)),
    "None": (TypeError, "got NoneType", lambda: None),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_is_not_numbers_without_doubt_is_refused_with_what_to_write(mistake: str) -> None:
    kind, message, value = REFUSED[mistake]
    with pytest.raises(kind, match=message):
        as_tensor("x", value())


def test_data_frames_in_another_order_are_refused_since_rows_are_paired_by_position() -> None:
    x = pd.DataFrame(X, index=[f"item {i}" for i in range(N)])
    for pair in (
        lambda y: modalign.align(x, y, k=3),
        lambda y: metrics.cka(x, y),
        lambda y: metrics.rsa(x, y),
        lambda y: metrics.mutual_knn(x, y, k=3),
        lambda y: pid(x, y, np.arange(N) % 2),
    ):
        with pytest.raises(ValueError, match=r"indexes 'item 0' and 'item 39' in row 0; write y\.loc\[x\.index\]"):
            pair(x[::-1])
    assert metrics.cka(x, x.copy()) == pytest.approx(1)


def test_numpy_holds_bfloat16_as_float32() -> None:
    array = as_numpy("x", torch.tensor([[1.5]], dtype=torch.bfloat16, requires_grad=True))
    assert (array.dtype, array.tolist()) == (np.float32, [[1.5]])


GRAPH = modalign.knn(X, 5)


@pytest.mark.parametrize(
    "kind", ["int16", "int32", "uint32", "uint64", "list", "tensor", "frame", "Neighbors of lists"]
)
def test_graphs_may_hold_integers_of_any_kind(kind: str) -> None:
    table = GRAPH.indices
    graph: Any = {
        "list": table.tolist(),
        "tensor": torch.from_numpy(table).int(),
        "frame": pd.DataFrame(table),
        "Neighbors of lists": modalign.Neighbors(table.tolist(), GRAPH.scores.tolist(), "cosine", N, GRAPH.certificate),
    }.get(kind)
    graph = table.astype(kind) if graph is None else graph
    assert (np.asarray(modalign.neighbor_overlap(graph, GRAPH))[:, -1] == 5).all()
    assert metrics.reciprocity(graph) == metrics.reciprocity(GRAPH)
    assert metrics.hubness(graph) == metrics.hubness(GRAPH)
    assert neighborhood_scores("mutual_knn", graph, GRAPH).mean() == 1
    assert int(relabelled_overlap(graph, GRAPH, np.arange(N, dtype=np.int32))) == 5 * N
    neighbors = graph if kind.startswith("Neighbors") else dataclasses.replace(GRAPH, indices=graph)
    assert (neighbors.to_scipy("connectivity") != GRAPH.to_scipy("connectivity")).nnz == 0
    assert torch.equal(neighbors.edge_index(), GRAPH.edge_index())
    np.testing.assert_array_equal(neighbors.to_umap()[0], GRAPH.to_umap()[0])


def test_a_graph_without_an_order_or_with_missing_neighbours_is_refused() -> None:
    sparse = GRAPH.to_scipy("distance", itself=False)
    with pytest.raises(TypeError, match=r"sparse graph, which has no order; .*np\.take_along_axis"):
        modalign.neighbor_overlap(sparse, GRAPH)
    missing = GRAPH.indices.copy()
    missing[3, 4] = -1
    with pytest.raises(ValueError, match="0 or more, got -1"):
        modalign.neighbor_overlap(missing, GRAPH)
    with pytest.raises(ValueError, match=r"holds 4294967295, the largest uint32.*missing"):
        modalign.neighbor_overlap(missing.astype(np.uint32), GRAPH)
    with pytest.raises(TypeError, match=r"whole numbers, got float64; write x.astype\(np.int64\)"):
        as_indices("graph", GRAPH.indices.astype(float))
    with pytest.raises(TypeError, match="pair of tables, as of indices and distances; pass one"):
        metrics.reciprocity((GRAPH.indices, GRAPH.scores))
    n, k = GRAPH.indices.shape
    ordered = np.take_along_axis(sparse.indices.reshape(n, k), sparse.data.reshape(n, k).argsort(1, kind="stable"), 1)
    np.testing.assert_array_equal(ordered, GRAPH.indices)


def test_frames_of_polars_are_taken() -> None:
    import polars

    for table in (polars.DataFrame(X), polars.DataFrame({"e": X}), polars.Series(X)):
        np.testing.assert_array_equal(np.asarray(as_array("x", table)), X)
    with pytest.raises(TypeError, match=r"write x.collect\(\)"):
        as_array("x", polars.DataFrame(X).lazy())


def test_a_view_of_memory_is_the_array_over_it() -> None:
    np.testing.assert_array_equal(modalign.knn(memoryview(X), 3).indices, modalign.knn(X, 3).indices)
    assert metrics.cka(memoryview(X), X[:, :2]) == metrics.cka(X, X[:, :2])
    assert as_array("x", memoryview(X)).tolist() == X.tolist()


@pytest.mark.parametrize("big", [2**70, 2**1100])
def test_what_is_no_number_of_numpy_is_named_with_its_row(big: int) -> None:
    with pytest.raises(TypeError, match=r"knn: x must hold numbers, got .* with None in row 1"):
        modalign.knn([[1, 2], [3, None], [1, 1]], 1)
    rows = [[1, 2], [3, 4], [big, 1.5 if big > 2**1000 else 1]]
    for x in (rows, np.array(rows, dtype=object)):
        with pytest.raises(ValueError, match=r"knn: x must hold integers below 2\^53, .* in row 2; .*np\.float64\) if"):
            modalign.knn(x, 1)
