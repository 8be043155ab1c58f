"""A k-NN graph as an object: the neighbours, what proves them, and the forms other libraries take."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modalign.neighbors.approximate import Recall

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Certificate", "Neighbors", "indices_of"]

VALUES = ("score", "distance", "connectivity")


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How the neighbours are known.

    screen: the precision in which candidates were excluded ("int8", "int16", "bfloat16", "float16", "float32"), "none"
        where float64 scored every pair, or the library of an approximate search.
    proved: rows whose neighbours the screen's error bound proves, once float64 scored what the screen could not
    exclude.
    redone: rows for which the screen excluded too little, so that float64 scored most of their candidates, or a second
        screen was needed. Their neighbours are as exact.
    scored: pairs of rows that float64 scored.
    recall: None: every neighbour is exact. Otherwise the measured recall of an approximate search.
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
    """The k nearest neighbours of each of m rows among n, best first.

    indices: (m, k) int64. scores: (m, k) in falling order. metric: what the scores are. candidates: n.
    NumPy arrays or tensors, as the rows were.
    """

    indices: Any
    scores: Any
    metric: str
    candidates: int
    certificate: Certificate

    @property
    def distances(self) -> Any:
        """(m, k): 1 - cosine, or the Euclidean distance. ValueError for metric "dot", which is none."""
        scores = torch.as_tensor(self.scores)
        if self.metric == "dot":
            raise ValueError("a dot product is no distance: use metric='cosine' or 'euclidean'")
        distances = (1 - scores).clamp_min(0) if self.metric == "cosine" else (-scores).clamp_min(0).sqrt()
        return distances if isinstance(self.scores, torch.Tensor) else distances.numpy()

    def to_scipy(self, values: str = "score") -> csr_array:
        """The graph as a SciPy CSR array (m, n), k entries a row, best first; for scikit-learn's
        ``metric="precomputed"`` with values="distance".

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
        table = {"score": lambda: self.scores, "distance": lambda: self.distances}.get(values)
        data = np.ones(m * k) if table is None else torch.as_tensor(table()).cpu().numpy().ravel()
        return csr_array((data, indices.ravel(), np.arange(m + 1) * k), shape=(m, self.candidates))

    def to_umap(self) -> tuple[Any, Any]:
        """(indices, distances), NumPy (m, k + 1) with every row its own first neighbour, for UMAP's
        ``precomputed_knn=(*graph.to_umap(), None)`` with n_neighbors = k + 1. For rows searched among themselves."""
        indices, distances = (torch.as_tensor(table).cpu() for table in (self.indices, self.distances))
        if len(indices) != self.candidates:
            raise ValueError("to_umap: needs the graph of one set searched for itself, got one of queries")
        itself = torch.arange(len(indices))[:, None]
        both = torch.cat([itself, indices], 1), torch.cat([torch.zeros_like(distances[:, :1]), distances], 1)
        return both[0].numpy(), both[1].numpy()

    def edge_index(self) -> torch.Tensor:
        """(2, m k) int64: an edge from every neighbour to its row, as PyTorch Geometric's ``knn_graph`` has them."""
        indices = torch.as_tensor(self.indices)
        rows = torch.arange(len(indices), device=indices.device)[:, None].expand_as(indices)
        return torch.stack([indices.reshape(-1), rows.reshape(-1)])


def indices_of(graph: Any) -> torch.Tensor:
    """The indices of ``Neighbors``, or of what are indices already, as a tensor on the CPU."""
    return torch.as_tensor(graph.indices if isinstance(graph, Neighbors) else graph).cpu()
