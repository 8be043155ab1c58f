"""A k-NN graph: the neighbours, how they are known, and the forms other libraries take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modalign.common.checks import one_of
from modalign.common.tensors import as_indices
from modalign.common.types import Array
from modalign.neighbors.approximate import Recall

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Certificate", "Neighbors", "indices_of"]

VALUES = ("score", "distance", "connectivity")


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How the neighbours of a graph are known.

    Attributes:
        screen: The precision in which candidates were excluded ("int8", "int16", "bfloat16", "float16", "float32"),
            "none" where float64 scored every pair, or the library of an approximate search.
        proved: The number of rows whose neighbours the screen's error bound proves, once float64 scored the candidates
            that the screen could not exclude.
        redone: The number of rows for which the screen excluded too little, so that float64 scored most of their
            candidates, or a second screen was needed. Their neighbours are as exact.
        scored: The number of pairs of rows that float64 scored.
        recall: The measured recall of an approximate search; None if every neighbour is exact.
    """

    screen: str
    proved: int
    redone: int
    scored: int
    recall: Recall | None = None

    def __str__(self) -> str:
        if self.recall is not None:
            return f"approximate, by {self.screen}: recall {self.recall}"
        return (
            f"exact: {self.proved:,} rows proved by the {self.screen} screen, {self.redone:,} redone, "
            f"{self.scored:,} pairs scored in float64"
        )


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """The k nearest neighbours of each of m rows among n candidates, best first.

    Arrays are NumPy arrays or tensors, as the rows were.

    Attributes:
        indices: (m, k) int64.
        scores: (m, k) in falling order.
        metric: The score: "cosine", "dot" or "euclidean" (minus the squared distance).
        candidates: n.
        certificate: How the neighbours are known.
        queries: Whether the m rows are queries. Otherwise they are the candidates, and no row is its own neighbour.
            None, where it is not known, stands for m != n.
    """

    indices: Any
    scores: Any
    metric: str
    candidates: int
    certificate: Certificate
    queries: bool | None = None

    @property
    def of_one_set(self) -> bool:
        """Whether the rows of one set were searched among themselves."""
        return len(self.indices) == self.candidates if self.queries is None else not self.queries

    def as_numpy(self) -> Neighbors:
        """Return the graph with NumPy arrays instead of tensors on the CPU, over the same memory."""
        indices, scores = (torch.as_tensor(part).numpy() for part in (self.indices, self.scores))
        return dataclasses.replace(self, indices=indices, scores=scores)

    @property
    def distances(self) -> Any:
        """(m, k) 1 - cosine, or the Euclidean distance.

        Raises:
            ValueError: The metric is "dot", which is no distance.
        """
        scores = torch.as_tensor(self.scores)
        if self.metric == "dot":
            raise ValueError("a dot product is no distance: use metric='cosine' or 'euclidean'")
        distances = (1 - scores).clamp_min(0) if self.metric == "cosine" else (-scores).clamp_min(0).sqrt()
        return distances if isinstance(self.scores, torch.Tensor) else distances.numpy()

    def to_scipy(self, values: str = "score", *, itself: bool | None = None) -> csr_matrix:
        """Return the graph as a SciPy CSR matrix (m, n), best first: k entries a row, or k + 1 with the row itself.

        The distances are a graph as scikit-learn's ``KNeighborsTransformer`` makes it. Estimators with
        ``metric="precomputed"``, ``affinity="precomputed_nearest_neighbors"`` and scanpy's ``transformer=`` take it for
        ``n_neighbors`` up to k, where they do not count a row as its own neighbour, else up to k + 1. They expect the
        row itself first, at distance 0; from a graph without it, they would drop the nearest neighbour of each row.

        Args:
            values: "score", "distance" or "connectivity" (ones).
            itself: Whether every row is its own first neighbour: at distance 0, with connectivity 1, or with the score
                of equal rows. None: only among distances, and not in a graph of queries.

        Raises:
            ValueError: ``itself`` is True for the graph of queries or for products, or distances are wanted of
                products.

        Examples:
            >>> import numpy as np, modalign
            >>> graph = modalign.knn(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), k=1)
            >>> graph.to_scipy("connectivity").toarray().astype(int).tolist()
            [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
        """
        from scipy.sparse import csr_matrix

        one_of("to_scipy", "values", values, VALUES)
        indices = indices_of("to_scipy: indices", self).cpu().numpy()
        if values == "connectivity":
            data = np.ones(indices.shape)
        else:
            data = torch.as_tensor(self.scores if values == "score" else self.distances).cpu().numpy()
        if itself is None:
            itself = values == "distance" and self.of_one_set
        if itself:
            self._require_one_set("to_scipy: itself=True")
            if values == "score" and self.metric == "dot":
                raise ValueError(
                    "to_scipy: itself=True needs the score of a row with itself, which a graph of dot "
                    "products does not hold; use values='connectivity', or metric='cosine'"
                )
            own = 1.0 if values == "connectivity" or (values == "score" and self.metric == "cosine") else 0.0
            indices = np.concatenate([np.arange(len(indices))[:, None], indices], 1)
            data = np.concatenate([np.full_like(data[:, :1], own), data], 1)
        m, k = indices.shape
        # not csr_array, which lacks methods that scanpy and others call
        return csr_matrix((data.ravel(), indices.ravel(), np.arange(m + 1) * k), shape=(m, self.candidates))

    def _require_one_set(self, operation: str) -> None:
        if not self.of_one_set:
            raise ValueError(f"{operation} needs the graph of one set searched for itself, got one of queries")

    def to_umap(self) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Return indices and distances (m, k + 1) as UMAP takes them: every row is its own first neighbour.

        Pass ``precomputed_knn=(*graph.to_umap(), None)`` with ``n_neighbors = k + 1`` to ``umap.UMAP``, and call
        ``fit_transform``. UMAP's ``transform`` of new rows needs pynndescent's index, which no graph holds.

        Raises:
            ValueError: The graph is of queries, not of rows searched among themselves.
        """
        indices, distances = indices_of("to_umap: indices", self).cpu(), torch.as_tensor(self.distances).cpu()
        self._require_one_set("to_umap:")
        rows = torch.arange(len(indices))[:, None]
        distances = torch.cat([torch.zeros_like(distances[:, :1]), distances], 1)
        return torch.cat([rows, indices], 1).numpy(), distances.numpy()

    def edge_index(self) -> torch.Tensor:
        """Return int64 edges (2, m k) from every neighbour to its row, as PyTorch Geometric has them."""
        indices = indices_of("edge_index: indices", self)
        rows = torch.arange(len(indices), device=indices.device)[:, None].expand_as(indices)
        return torch.stack([indices.reshape(-1), rows.reshape(-1)])


def indices_of(name: str, graph: Neighbors | Array) -> torch.Tensor:
    """Return the (n, k) indices of a graph, or indices themselves of any integer dtype, as an int64 tensor.

    Raises:
        TypeError: The graph is no table of integers.
        ValueError: It is not (n, k), or holds the mark of a missing neighbour.
    """
    given = graph.indices if isinstance(graph, Neighbors) else graph
    if isinstance(given, tuple) and len(given) == 2 and all(getattr(part, "ndim", 0) == 2 for part in given):
        raise TypeError(f"{name} must be (n, k) indices, got a pair of tables, as of indices and distances; pass one")
    indices = as_indices(name, given)
    if indices.ndim != 2:
        raise ValueError(f"{name} must be (n, k), the neighbours of each item, got {tuple(indices.shape)}")
    return indices
