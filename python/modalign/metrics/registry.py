"""The registry of alignment metrics: each is declared once, here, and everything else is derived from its entry.

``modalign.align``, the command line, the reports and the table in ``docs/alignment.md`` all read ``METRICS``. To add a
metric, write its public function and its evaluator, then add an entry; ``register`` adds one from another package.
Functions are named as "module:function" and imported when they are first called, so this module does not import torch.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from modalign.common.names import did_you_mean, require_reference, resolve, suggestion
from modalign.metrics.cost import (
    COLUMN_DECOMPOSITIONS,
    COLUMN_PRODUCTS,
    COLUMN_SUBSPACES,
    LIST_POSITIONS,
    LIST_SETS,
    NEIGHBOR_ROWS,
    Cost,
    Sizes,
    nearest_pairs,
    tabled_pairs,
)

__all__ = ["DEFAULT_METRICS", "METRICS", "NEEDS", "Metric", "metric_names", "metrics_table", "register"]

NEEDS = {
    "lists": "the neighbours of each item",
    "graphs": "the neighbours of all items",
    "moments": "sums over the rows, in one pass",
    "pairs": "every pair of items, in tiles",
}
ANY = (-math.inf, math.inf)
ROLES = ("score", "evaluate", "relabelled", "expected", "attainable", "mean_by_chance")
SIGNED = (-1.0, 1.0)
NOT_NEGATIVE = (0.0, math.inf)


@dataclasses.dataclass(frozen=True)
class Metric:
    """An alignment metric: its functions, what it needs, and how to read its values.

    What ``evaluate`` and ``relabelled`` take and return depends on ``needs``:

    - "lists" (a mean over items that each need only their two lists) and "graphs" (needs the lists of all items):
      ``evaluate(Graphs) -> (m,) float64 scores of the items, or a float`` where the score is no mean over items;
      ``relabelled(Graphs) -> f`` with ``f(s)`` the scores () or (p,) float64 of permutations (n,) or (p, n).
      Where neighbours tie, the score is its expectation over random orders of tied neighbours: ``expected(TiedGraphs,
      kept=None, relabelling=None) -> (m,) float64`` where it has a closed form, else a mean over drawn orders.
    - "moments": ``evaluate(Moments) -> float``. ``modalign.metrics.sums.relabelled`` serves all of them.
    - "pairs": ``evaluate(PairedRows) -> float``; ``relabelled(PairedRows) -> f`` with ``f(s)`` the score as a float of
      x and y[s] for a permutation s (n,), from tables that are computed once, or None where these are too large;
      ``attainable(PairedRows) -> float`` the best score that ties in the rows allow.

    ``Graphs`` and ``PairedRows`` are in ``modalign.metrics.inputs``, ``Moments`` in ``modalign.metrics.sums``.

    Attributes:
        name: The name in ``modalign.align`` and on the command line.
        title: The name in tables and figures.
        needs: "lists", "graphs", "moments" or "pairs", a key of ``NEEDS``.
        score: "module:function" of the public function, which takes rows.
        evaluate: "module:function" of the evaluator.
        cost: The time of an evaluation and the memory of its tables.
        best: The value for two equal representations; 0 for a distance, of which a lower value is closer.
        symmetric: Whether the score of (x, y) is that of (y, x).
        range: The bounds that no value passes; intervals are clipped to them.
        relabelled: "module:function" for many relabellings of y, or None where each is an evaluation of its own.
        mean_by_chance: "module:function" from the evaluator's inputs to the mean score of unrelated representations, or
            None where it is not known in closed form.
        expected: "module:function" of the expectation over orders of tied neighbours, or None where orders are drawn.
        attainable: "module:function" of the best score that ties in the rows allow, for "pairs"; None for ``best``.
        closed_form: The name of the closed-form null in ``modalign.alignment.closed_forms.CLOSED_FORMS``, or None.
        reads_rows: Whether a metric of graphs reads the rows too (``Graphs.rows``).
        same_width: Whether x and y must have the same width.
        similarities: The values of ``metric=`` that it takes.
        options: Keyword arguments of all its functions, which make it a variant of another metric, such as
            ``{"variant": "code"}``. "all" leaves variants out.
    """

    name: str
    title: str
    needs: str
    score: str
    evaluate: str
    cost: Cost
    best: float = 1.0
    symmetric: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    relabelled: str | None = None
    expected: str | None = None
    attainable: str | None = None
    mean_by_chance: str | None = None
    closed_form: str | None = None
    reads_rows: bool = False
    same_width: bool = False
    similarities: tuple[str, ...] = ("cosine", "dot", "euclidean")
    options: Mapping[str, object] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.needs not in NEEDS:
            hint = suggestion(self.needs, NEEDS)
            raise ValueError(f"Metric {self.name}: needs must be one of {', '.join(NEEDS)}, got {self.needs!r}{hint}")
        for role in ROLES:
            if getattr(self, role) is not None:
                require_reference(getattr(self, role), f"Metric {self.name}: {role}")

    @property
    def lower_is_closer(self) -> bool:
        """Whether the metric is a distance."""
        return self.best == 0

    def load(self, role: str) -> Callable[..., Any]:
        """Import and return the function of a role of ``ROLES``, with the options given."""
        name: str | None = {role: getattr(self, role) for role in ROLES}[role]
        if name is None:
            raise ValueError(f"Metric {self.name} has no function {role!r}")
        function: Callable[..., Any] = resolve(name)
        return functools.partial(function, **self.options) if self.options else function

    def seconds(self, sizes: Sizes, *, again: bool = False) -> float:
        """Return the seconds of one evaluation, as ``Cost.seconds`` estimates them."""
        return self.cost.seconds(sizes, again=again)


EVALUATOR = {"lists": "of_graphs", "graphs": "of_graphs", "moments": "of_moments", "pairs": "of_rows"}


def _metric(module: str, name: str, title: str, needs: str, **columns: Any) -> Metric:
    """Return the entry of a metric of this package, whose evaluator stands beside its public function.

    The evaluator of ``cka`` in ``linear``, which needs moments, is ``cka_of_moments``.
    """
    score = f"modalign.metrics.{module}:{name}"
    columns = {"score": score, "evaluate": f"{score}_{EVALUATOR[needs]}", **columns}
    return Metric(name=name, title=title, needs=needs, **columns)


RELABELLED = "modalign.metrics.pair_tables:relabelled"
_ENTRIES = (
    _metric(
        "neighborhoods",
        "mutual_knn",
        "mutual k-NN",
        "lists",
        cost=LIST_SETS,
        relabelled="modalign.metrics.relabelled_graphs:relabelled_mutual_knn",
        expected="modalign.metrics.tied_graphs:expected_shares",
        closed_form="shared_edges",
    ),
    _metric("neighborhoods", "jaccard_knn", "Jaccard index of neighbours", "lists", cost=LIST_SETS),
    _metric("neighborhoods", "rank_similarity", "rank similarity of neighbours", "lists", cost=LIST_SETS),
    _metric("neighborhoods", "lcs_knn", "longest common subsequence of neighbours", "lists", cost=LIST_POSITIONS),
    _metric("neighborhoods", "edit_distance_knn", "edit similarity of neighbours", "lists", cost=LIST_POSITIONS),
    _metric("neighborhoods", "cycle_knn", "cycle k-NN", "graphs", cost=LIST_POSITIONS, symmetric=False),
    _metric(
        "edges",
        "cknna",
        "CKNNA",
        "graphs",
        cost=NEIGHBOR_ROWS,
        range=SIGNED,
        reads_rows=True,
        similarities=("cosine", "dot"),
    ),
    _metric(
        "edges",
        "second_order_cosine",
        "second-order cosine",
        "graphs",
        cost=NEIGHBOR_ROWS,
        range=SIGNED,
        reads_rows=True,
    ),
    _metric("linear", "cka", "linear CKA", "moments", cost=COLUMN_PRODUCTS, closed_form="cka"),
    _metric(
        "linear",
        "unbiased_cka",
        "unbiased linear CKA",
        "moments",
        cost=COLUMN_PRODUCTS,
        range=ANY,
        closed_form="unbiased_cka",
    ),
    _metric(
        "linear",
        "clipped_cka",
        "unbiased linear CKA, clipped at 0",
        "moments",
        cost=COLUMN_PRODUCTS,
        range=NOT_NEGATIVE,
    ),
    _metric("canonical", "cca", "mean canonical correlation", "moments", cost=COLUMN_DECOMPOSITIONS),
    _metric("canonical", "svcca", "SVCCA", "moments", cost=COLUMN_DECOMPOSITIONS),
    _metric("canonical", "pwcca", "PWCCA", "moments", cost=COLUMN_DECOMPOSITIONS, symmetric=False),
    _metric("linear", "procrustes", "Procrustes similarity", "moments", cost=COLUMN_DECOMPOSITIONS),
    _metric("linear", "rv", "RV coefficient", "moments", cost=COLUMN_PRODUCTS, closed_form="cka"),
    _metric("linear", "cmd", "correlation-matrix distance", "moments", cost=COLUMN_PRODUCTS, best=0.0),
    _metric("linear", "centered_cmd", "centred correlation-matrix distance", "moments", cost=COLUMN_PRODUCTS, best=0.0),
    _metric(
        "canonical",
        "linear_r2",
        "R2 of linear regression",
        "moments",
        cost=COLUMN_DECOMPOSITIONS,
        symmetric=False,
        mean_by_chance="modalign.metrics.canonical:linear_r2_by_chance",
    ),
    _metric(
        "gaussian_kernels",
        "rbf_cka",
        "CKA of Gaussian kernels",
        "pairs",
        cost=tabled_pairs(1.0e-7),
        range=ANY,
        relabelled=f"{RELABELLED}_rbf_cka",
    ),
    _metric(
        "distances",
        "rsa",
        "RSA",
        "pairs",
        cost=tabled_pairs(1.7e-7, pair_bytes=48),
        range=SIGNED,
        relabelled=f"{RELABELLED}_rsa",
    ),
    _metric(
        "ranks",
        "information_imbalance",
        "information imbalance, x to y",
        "pairs",
        cost=nearest_pairs(4e-8, lambda n: 24 * n * n),
        best=0.0,
        symmetric=False,
        range=NOT_NEGATIVE,
        relabelled=f"{RELABELLED}_information_imbalance",
        attainable="modalign.metrics.ranks:best_information_imbalance",
    ),
    _metric(
        "ranks",
        "retrieval",
        "recall at 1 of y by x",
        "pairs",
        cost=nearest_pairs(1.5e-8, lambda n: 500 * n),
        symmetric=False,
        same_width=True,
        relabelled=f"{RELABELLED}_retrieval",
        attainable="modalign.metrics.ranks:best_retrieval",
    ),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ENTRIES}
METRICS["svcca_code"] = _metric(
    "published_svcca",
    "svcca_code",
    "SVCCA, as the published code",
    "pairs",
    cost=COLUMN_SUBSPACES,
    relabelled="modalign.metrics.published_svcca:relabelled_svcca_code",
    options={"components": 10},
)
METRICS |= {
    f"{name}_code": dataclasses.replace(
        METRICS[name],
        name=f"{name}_code",
        title=f"{METRICS[name].title}, as the published code",
        range=ANY,
        closed_form=None,
        options={"variant": "code"},
    )
    for name in ("cknna", "unbiased_cka")
}

DEFAULT_METRICS = ("mutual_knn", "jaccard_knn", "cknna", "cka", "unbiased_cka")  # of modalign.align


def register(metric: Metric) -> None:
    """Add a metric, which ``modalign.align`` and the command line then take by its name.

    Raises:
        ValueError: If there is a metric of that name.

    Examples:
        >>> import dataclasses
        >>> from modalign.metrics.registry import METRICS, metric_names, register
        >>> register(dataclasses.replace(METRICS["cka"], name="my_cka", title="my CKA"))
        >>> metric_names("align", "my_cka")
        ['my_cka']
        >>> del METRICS["my_cka"]
    """
    if metric.name in METRICS:
        raise ValueError(f"register: the name of a metric must be new, got {metric.name!r}, which is registered")
    METRICS[metric.name] = metric


def metric_names(operation: str, metrics: str | Sequence[str]) -> list[str]:
    """Check the metrics that a caller names, and return their names as a list.

    Args:
        operation: The name of the calling function, with which error messages begin.
        metrics: One name, several names, or "all" for every registered metric but the variants.

    Raises:
        TypeError: For something else than a name or a list of names.
        ValueError: For an unknown name, no name, or a name that is given twice.

    Examples:
        >>> from modalign.metrics.registry import metric_names
        >>> metric_names("align", ["cka", "mutual_knn"])
        ['cka', 'mutual_knn']
    """
    if isinstance(metrics, str) and metrics == "all":
        return [name for name, metric in METRICS.items() if not metric.options]
    names = [metrics] if isinstance(metrics, str) else list(metrics) if isinstance(metrics, Iterable) else [metrics]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"{operation}: metrics must be a name, a list of names, or 'all', got {metrics!r}; leave metrics out for "
            f"{', '.join(DEFAULT_METRICS)}"
        )
    for name in names:
        if name not in METRICS:
            hint = did_you_mean(name, (*METRICS, "all"))
            raise ValueError(
                f"{operation}: metrics must be among {', '.join(METRICS)}, or 'all', got {name!r}{hint and f'; {hint}'}"
            )
    if not names:
        raise ValueError(f"{operation}: metrics must name at least one of {', '.join(METRICS)}, got none")
    if len(set(names)) < len(names):
        raise ValueError(f"{operation}: metrics must be different names, got {names}")
    return names


def metrics_table() -> str:
    """Return the Markdown table of all registered metrics that ``docs/alignment.md`` shows.

    Examples:
        >>> from modalign.metrics.registry import metrics_table
        >>> print(metrics_table().splitlines()[2])
        | `mutual_knn` | mutual k-NN | the neighbours of each item | 0 to 1 | higher | yes | n k log k |
    """
    lines = [
        "| name | metric | needs | range | closer is | symmetric | time |",
        "|---|---|---|---|---|---|---|",
    ]
    for metric in METRICS.values():
        cells = (
            f"`{metric.name}`",
            metric.title,
            NEEDS[metric.needs],
            _range_in_words(metric.range),
            "lower" if metric.lower_is_closer else "higher",
            "yes" if metric.symmetric else "no",
            metric.cost.order,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _range_in_words(bounds: tuple[float, float]) -> str:
    low, high = bounds
    if bounds == ANY:
        return "any number"
    return f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
