"""The settings of one call of ``align``, ``align_layers`` or ``sampled_mutual_knn``, checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

from modalign.alignment.relabelling import require_relabellings
from modalign.common.checks import one_of, torch_seed, whole_number
from modalign.metrics.registry import DEFAULT_METRICS, METRICS, metric_names
from modalign.neighbors.block_size import bytes_of
from modalign.ops.knn_tables import METRICS as SIMILARITIES
from modalign.ops.knn_tables import MOST_THREADS

__all__ = ["SearchOptions", "Settings"]

NULLS = ("auto", "relabelled", "none")


class SearchOptions(TypedDict):
    """The options of ``modalign.knn`` that all searches of one call share."""

    metric: str
    max_memory: int | str | None
    num_threads: int | None
    progress: bool


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the caller asked for, the data aside. The arguments of ``modalign.align`` say what each setting means.

    Attributes:
        operation: str. Name of the public function, with which error messages begin.
        metrics: "all", or the names of the metrics.

    Raises:
        TypeError: If ``k`` or another number is of another type.
        ValueError: If a setting is out of range, or two of them exclude each other.
    """

    operation: str
    metrics: str | Sequence[str]
    k: int
    metric: str = "cosine"
    prepare: str | None = None
    sample: int | None = None
    tolerance: float | None = None
    null: str = "auto"
    relabellings: int | None = None
    intervals: bool = True
    size_curve: bool = False
    confidence: float = 0.95
    seed: int = 0
    max_memory: int | str | None = None
    num_threads: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        operation = self.operation
        metric_names(operation, self.metrics)
        # Python's integers, which files and random generators take
        object.__setattr__(self, "k", whole_number(operation, "k", self.k))
        object.__setattr__(self, "seed", torch_seed(operation, self.seed))
        if self.sample is not None:
            object.__setattr__(self, "sample", whole_number(operation, "sample", self.sample))
        if self.max_memory is not None:
            object.__setattr__(self, "max_memory", bytes_of(self.max_memory, f"{operation}: max_memory"))
        if self.num_threads is not None:
            threads = whole_number(operation, "num_threads", self.num_threads, least=1, most=MOST_THREADS)
            object.__setattr__(self, "num_threads", threads)
        object.__setattr__(self, "relabellings", require_relabellings(operation, self.relabellings))
        if any(METRICS[name].needs in ("lists", "graphs") for name in self.names):
            if self.metric in METRICS:
                raise ValueError(
                    f"{operation}: metric must be the similarity that defines neighbours, one of {SIMILARITIES}, got "
                    f"{self.metric!r}; write metrics={self.metric!r}"
                )
            one_of(operation, "metric", self.metric, SIMILARITIES)
        one_of(operation, "null", self.null, NULLS)
        if self.sample is not None and self.tolerance is not None:
            raise ValueError(f"{operation}: give sample or tolerance, got both")
        if not 0 < self.confidence < 1:
            raise ValueError(f"{operation}: confidence must be between 0 and 1, got {self.confidence}")

    @property
    def names(self) -> list[str]:
        """The names of the metrics, in the order asked for."""
        return metric_names(self.operation, self.metrics)

    @property
    def asks_for_all(self) -> bool:
        """Whether all metrics are asked for: those that are not defined for the rows are left out."""
        return isinstance(self.metrics, str) and self.metrics == "all"

    @property
    def asks_for_usual(self) -> bool:
        """Whether the metrics are "all" or the default ones: those that the settings exclude are left out."""
        return isinstance(self.metrics, (str, tuple)) and self.metrics in ("all", DEFAULT_METRICS)

    @property
    def sampled(self) -> bool:
        """Whether the neighbours of a sample of the items are searched, not those of all."""
        return self.sample is not None or self.tolerance is not None

    @property
    def search(self) -> SearchOptions:
        """The options of the searches."""
        return {
            "metric": self.metric,
            "max_memory": self.max_memory,
            "num_threads": self.num_threads,
            "progress": self.progress,
        }

    def names_that_need(self, names: Sequence[str], *needs: str) -> list[str]:
        """Return those of ``names`` whose metric has one of these needs."""
        return [name for name in names if METRICS[name].needs in needs]
