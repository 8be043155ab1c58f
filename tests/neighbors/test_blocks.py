"""A search by blocks returns the graph of the definition, whatever the blocks are."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import modalign
from modalign.files.rows import Rows, open_rows
from modalign.neighbors import blocks as blocks_module
from modalign.neighbors import knn_out_of_core
from modalign.reference.knn import knn
from neighbors.block_searches import METRICS, D, K, N, require_same, run, some_rows, stopped_after


@pytest.mark.parametrize("block_size", [17, 100, N, 1000])
@pytest.mark.parametrize("metric", METRICS)
def test_blocks_change_nothing(metric: str, block_size: int) -> None:
    x = some_rows()
    require_same(knn_out_of_core(open_rows(x), K, metric=metric, block_size=block_size), knn(x, None, K, metric))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_every_dtype_has_its_float64_scores(dtype: torch.dtype) -> None:
    x = some_rows(dtype=dtype)
    require_same(knn_out_of_core(open_rows(x), K, metric="dot", block_size=50), knn(x, None, K, "dot"))


@pytest.mark.parametrize("block_size", [17, 100, 1000])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("m", [1, 90, 300])
def test_queries_search_the_gallery(metric: str, block_size: int, m: int) -> None:
    x, queries = (
        some_rows(),
        torch.cat([some_rows(N, seed=0)[:m], some_rows(N, seed=1)])[:m],
    )  # with rows of x among them
    result = knn_out_of_core(open_rows(x), K, queries=open_rows(queries), metric=metric, block_size=block_size)
    require_same(result, knn(x, queries, K, metric))


def test_a_set_that_queries_itself_finds_itself() -> None:
    rows = open_rows(some_rows())
    result = knn_out_of_core(rows, K, queries=rows, metric="euclidean", block_size=30)
    require_same(result, knn(some_rows(), some_rows(), K, "euclidean"))


@pytest.mark.parametrize(("backend", "block_size"), [("cpp", 17), ("cpp", 100), ("cpp", 1000), ("triton", 60)])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_of_a_group_are_no_neighbours(metric: str, backend: str, block_size: int) -> None:
    n = 130 if backend == "triton" else N
    x, groups = some_rows(n), torch.randint(-3, 4, (n,))
    groups[:70] = 9  # a block may hold no candidate for a row
    result = knn_out_of_core(open_rows(x), K, metric=metric, groups=groups, block_size=block_size, backend=backend)
    require_same(result, knn(x, None, K, metric, groups=groups))
    queries, query_groups = some_rows(90, seed=1), torch.randint(-4, 5, (90,))  # some groups are not in x
    result = knn_out_of_core(
        open_rows(x),
        K,
        queries=open_rows(queries),
        metric=metric,
        groups=groups,
        query_groups=query_groups,
        block_size=block_size,
        backend=backend,
    )
    require_same(result, knn(x, queries, K, metric, groups=groups, query_groups=query_groups))


@pytest.mark.parametrize("n", [2, 3, 128])
def test_k_may_be_all_the_others(n: int) -> None:
    x = some_rows()[:n]
    require_same(knn_out_of_core(open_rows(x), n - 1, metric="dot", block_size=2), knn(x, None, n - 1, "dot"))


@pytest.mark.parametrize("block_size", [64, 50])
@pytest.mark.parametrize("metric", METRICS)
def test_blocks_on_the_gpu_give_the_same_bits(metric: str, block_size: int) -> None:
    """The Triton interpreter runs the kernels in this process: three blocks of rows, the last incomplete."""
    x, queries = some_rows(130), some_rows(70, seed=1)
    result = knn_out_of_core(open_rows(x), K, metric=metric, block_size=block_size, backend="triton")
    require_same(result, knn(x, None, K, metric))
    result = knn_out_of_core(
        open_rows(x), K, queries=open_rows(queries), metric=metric, block_size=block_size, backend="triton"
    )
    require_same(result, knn(x, queries, K, metric))


@pytest.mark.parametrize("block_size", [17, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_the_reference_goes_by_blocks_too(metric: str, block_size: int) -> None:
    x, groups, queries = some_rows(), torch.randint(-3, 4, (N,)), some_rows(90, seed=1)
    settings: dict[str, Any] = {"metric": metric, "block_size": block_size, "backend": "reference"}
    result = knn_out_of_core(open_rows(x), K, groups=groups, **settings)
    require_same(result, knn(x, None, K, metric, groups=groups))
    require_same(knn_out_of_core(open_rows(x), K, queries=open_rows(queries), **settings), knn(x, queries, K, metric))


def test_a_checkpoint_of_one_backend_is_continued_by_another(tmp_path: Path) -> None:
    """A list here is longer than a block."""
    x = some_rows(130, torch.float16)
    with stopped_after(5):
        knn_out_of_core(open_rows(x), 70, block_size=60, checkpoint=tmp_path, backend="triton")
    assert len(list(tmp_path.glob("block-*.npz"))) >= 1
    require_same(knn_out_of_core(open_rows(x), 70, block_size=60, checkpoint=tmp_path), knn(x, None, 70, "cosine"))


def test_what_the_gpu_cannot_search_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"triton: dtype torch\.int8"):
        knn_out_of_core(open_rows(some_rows(dtype=torch.int8)), K, checkpoint=tmp_path / "new", backend="triton")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="backend must be 'auto' or one of"):
        knn_out_of_core(open_rows(some_rows()), K, backend="torch")


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    if not torch.cuda.is_available():
        with pytest.raises(NotImplementedError, match="triton: torch sees no GPU"):
            knn_out_of_core(open_rows(some_rows()), K, block_size=50, backend="triton")


def test_one_row_has_itself_for_a_neighbour_of_queries() -> None:
    x = open_rows(torch.ones(1, 3))
    assert knn_out_of_core(x, 1, queries=x)[0].tolist() == [[0]]


@pytest.mark.parametrize(("m", "blocks"), [(None, 7), (150, 7)])
def test_a_pair_of_blocks_is_visited_once_and_one_of_it_stays(
    m: int | None, blocks: int, merges: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = Rows.read

    def counted(self: Rows, start: int, stop: int, into: Tensor) -> Tensor:
        reads.append((self, start))
        return real(self, start, stop, into)

    monkeypatch.setattr(Rows, "read", counted)
    queries = None if m is None else open_rows(some_rows(m))
    knn_out_of_core(open_rows(some_rows()), K, queries=queries, metric="dot", block_size=30)
    starts = range(0, N, 30)
    pairs = [(x, y) for x, y, *_ in merges]
    if queries is None:
        assert sorted(pairs) == list(itertools.combinations_with_replacement(starts, 2))
        assert (
            len(reads) == blocks + (blocks - 1) * (blocks - 2) // 2
        )  # in the first run all; later the first and the last are in memory
    else:
        assert sorted(pairs) == list(itertools.product(range(0, 150, 30), starts))
        assert len(reads) == 5 + 7 + 4 * 6


X = some_rows()
BAD: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "k = 0": (ValueError, "k must be between 1 and 202 for 203 rows, got 0", {"k": 0}),
    "k = n": (ValueError, "between 1 and 202 for 203 rows, got 203", {"k": N}),
    "k > n": (ValueError, "between 1 and 203 for 203 rows, got 204", {"k": N + 1, "queries": open_rows(X[:3])}),
    "k text": (TypeError, "k must be an integer, got '5'", {"k": "5"}),
    "k None": (TypeError, "k must be an integer, got None", {"k": None}),
    "k true": (TypeError, "k must be an integer, got True", {"k": True}),
    "metric": (ValueError, r"metric must be one of \('cosine', .*got 'l1'", {"metric": "l1"}),
    "block_size": (ValueError, "block_size must be at least 1, got 0", {"block_size": 0}),
    "block_size text": (TypeError, "block_size must be an integer, got 1.5", {"block_size": 1.5}),
    "max_memory text": (TypeError, "max_memory must be an integer, got '8GB'", {"max_memory": "8GB"}),
    "width": (ValueError, r"width and dtype of x, got \(203, 6\)", {"queries": open_rows(X[:, :6])}),
    "dtype": (ValueError, r"width and dtype of x, got .*float64 for", {"queries": open_rows(X.double())}),
    "groups short": (
        ValueError,
        r"groups must be \(203,\), one for each row, got \(202,\)",
        {"groups": torch.arange(N - 1)},
    ),
    "groups float": (TypeError, "groups must be int64, got torch.float32", {"groups": torch.ones(N)}),
    "query_groups missing": (ValueError, "go together", {"groups": torch.arange(N), "queries": open_rows(X)}),
    "groups missing": (ValueError, "go together", {"query_groups": torch.arange(N), "queries": open_rows(X)}),
    "query_groups alone": (
        ValueError,
        "query_groups need queries",
        {"query_groups": torch.arange(N), "groups": torch.arange(N)},
    ),
    "query_groups short": (
        ValueError,
        r"query_groups must be \(3,\)",
        {"query_groups": torch.arange(N), "queries": open_rows(X[:3]), "groups": torch.arange(N)},
    ),
    "large group": (
        ValueError,
        r"k = 5 candidates outside its group, got fewer for 199 rows, the first \[0, 1, 3\]",
        {"groups": torch.where(torch.isin(torch.arange(N), torch.tensor([2, 9, 100, 202])), 1, 0)},
    ),
    "NaN": (
        ValueError,
        r"x must be finite, got NaN or inf in rows \[202\]",
        {"x": open_rows(torch.cat([X[:-1], torch.full((1, D), torch.nan)]))},
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_named(mistake: str) -> None:
    kind, message, settings = BAD[mistake]
    with pytest.raises(kind, match=message):
        run(None, **settings)


def test_negative_rows_of_float64_are_fine() -> None:
    x = -some_rows(dtype=torch.float64).abs() - 1
    require_same(run(None, open_rows(x)), knn(x, None, K, "euclidean"))


# rows whose squares float64 cannot hold

SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "tiny": lambda x: x * 1e-130,
    "huge": lambda x: x * 2.0**450,
    "least": lambda x: x * 2.0**-1060,
    "a block of them": lambda x: torch.cat([x[:150], x[150:] * 1e-130]),
    "one row": lambda x: torch.cat([x[:40], x[40:41] * 2.0**405, x[41:]]),
    "a row of zeros": lambda x: torch.cat([x * 1e-140, torch.zeros(3, 8, dtype=x.dtype)]),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", SCALES)
def test_rows_out_of_range_have_the_neighbours_they_have_in_memory(scale: str, metric: str, tmp_path: Path) -> None:
    """``knn(x, 3)`` and ``knn(x, 3, max_memory=...)`` agree bit for bit, with queries, groups and a checkpoint too."""
    generator = torch.Generator().manual_seed(0)
    x = SCALES[scale](torch.randn(300, 8, dtype=torch.float64, generator=generator))
    queries, groups = x[::5] * 1.25, torch.arange(len(x)) % 7
    variants: list[dict[str, Any]] = [
        {},
        {"groups": groups},
        {"queries": queries},
        {"queries": queries, "groups": groups, "query_groups": torch.arange(len(queries)) % 5},
        {"queries": torch.randn(20, 8, dtype=torch.float64, generator=generator)},  # in range, though x is not
    ]
    for number, variant in enumerate(variants):
        whole = modalign.knn(x, 3, metric=metric, **variant)
        folder = {"block_size": 64, "checkpoint": tmp_path / f"{number}"}
        for limit in ({"max_memory": "40MB"}, {"block_size": 64}, folder):
            parts = modalign.knn(x, 3, metric=metric, **variant, **limit)
            assert torch.equal(parts.indices, whole.indices)
            assert torch.equal(parts.scores, whole.scores)


def test_rows_out_of_range_are_continued(tmp_path: Path) -> None:
    x = some_rows(dtype=torch.float64) * 1e-200
    with stopped_after(5):
        run(tmp_path, open_rows(x))
    result = run(tmp_path, open_rows(x))
    assert torch.equal(result[0], modalign.knn(x, K, metric="euclidean").indices)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["scale"] == -659


def test_a_checkpoint_of_rows_that_were_not_scaled_is_refused(tmp_path: Path) -> None:
    """Earlier versions kept the blocks before the first one with rows out of range, where they raised an error."""
    x = some_rows(dtype=torch.float64) * 1e-200
    with stopped_after(2):
        run(tmp_path, open_rows(x))
    record = json.loads((tmp_path / "checkpoint.json").read_text())
    del record["scale"]
    (tmp_path / "checkpoint.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"of other settings \(scale: absent before, -659 now\); .*fresh=True"):
        run(tmp_path, open_rows(x))


def test_exactly_k_candidates_outside_the_group_are_enough() -> None:
    groups = torch.zeros(N, dtype=torch.int64)
    groups[[2, 9, 100, 150, 202]] = torch.arange(1, 6)
    require_same(run(None, groups=groups), knn(X, None, K, "euclidean", groups=groups))


# what is shown


@pytest.mark.parametrize("progress", [True, False])
def test_the_bar_is_for_terminals(
    progress: bool, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(None, progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(None, progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("100%" in err) == progress


def test_the_bar_counts_pairs_of_rows_those_of_earlier_calls_too(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[Any] = []
    real = blocks_module.bar
    monkeypatch.setattr(blocks_module, "bar", lambda shown: bars.append(real(shown)) or bars[-1])
    for _ in range(2):
        run(half)
    total = sum(x * y for x, y in itertools.combinations_with_replacement([30] * 6 + [23], 2))
    assert [(bar.tasks[0].total, bar.tasks[0].completed) for bar in bars] == [(total, total)] * 2
