"""A k-NN graph: the neighbours, how they are known, and the forms other libraries take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modalign.common.types import Array
from modalign.neighbors.approximate import Recall

if TYPE_CHECKING:
    from scipy.sparse import csr_array

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
    """

    indices: Any
    scores: Any
    metric: str
    candidates: int
    certificate: Certificate

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

    def to_scipy(self, values: str = "score") -> csr_array:
        """Return the graph as a SciPy CSR array (m, n), k entries a row, best first.

        scikit-learn takes the array of distances with ``metric="precomputed"``.

        Args:
            values: "score", "distance" or "connectivity" (ones).

        Examples:
            >>> import numpy as np, modalign
            >>> graph = modalign.knn(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), k=1)
            >>> graph.to_scipy("connectivity").toarray().astype(int).tolist()
            [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
        """
        from scipy.sparse import csr_array

        if values not in VALUES:
            raise ValueError(f"to_scipy: values must be one of {VALUES}, got {values!r}")
        indices = torch.as_tensor(self.indices).cpu().numpy()
        m, k = indices.shape
        if values == "connectivity":
            data = np.ones(m * k)
        else:
            table = self.scores if values == "score" else self.distances
            data = torch.as_tensor(table).cpu().numpy().ravel()
        return csr_array((data, indices.ravel(), np.arange(m + 1) * k), shape=(m, self.candidates))

    def to_umap(self) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
        """Return indices and distances (m, k + 1) as UMAP takes them: every row is its own first neighbour.

        Pass ``precomputed_knn=(*graph.to_umap(), None)`` with ``n_neighbors = k + 1``.

        Raises:
            ValueError: The graph is of queries, not of rows searched among themselves.
        """
        indices, distances = (torch.as_tensor(table).cpu() for table in (self.indices, self.distances))
        if len(indices) != self.candidates:
            raise ValueError("to_umap: needs the graph of one set searched for itself, got one of queries")
        rows = torch.arange(len(indices))[:, None]
        distances = torch.cat([torch.zeros_like(distances[:, :1]), distances], 1)
        return torch.cat([rows, indices], 1).numpy(), distances.numpy()

    def edge_index(self) -> torch.Tensor:
        """Return int64 edges (2, m k) from every neighbour to its row, as PyTorch Geometric has them."""
        indices = torch.as_tensor(self.indices)
        rows = torch.arange(len(indices), device=indices.device)[:, None].expand_as(indices)
        return torch.stack([indices.reshape(-1), rows.reshape(-1)])


def indices_of(graph: Neighbors | Array) -> torch.Tensor:
    """Return the indices of a graph, or indices themselves, as a tensor on the CPU."""
    return torch.as_tensor(graph.indices if isinstance(graph, Neighbors) else graph).cpu()
