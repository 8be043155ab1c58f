"""A search by a named backend, as the definition ``modalign.reference.knn.knn`` is called."""

from torch import Tensor

from modalign.ops.knn import RowBlock, SearchOptions, search


def knn(x: Tensor, queries: Tensor | None, k: int, metric: str, backend: str = "auto") -> tuple[Tensor, Tensor]:
    options = SearchOptions(k, metric=metric, backend=backend)
    indices, scores, _ = search(RowBlock(x), None if queries is None else RowBlock(queries), options)
    return indices, scores
