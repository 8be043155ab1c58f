"""What ``modalign.align`` returns: scores with their intervals and nulls, as text, tables and files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modalign.alignment.nulls import Null
from modalign.common import provenance
from modalign.files.atomic import write_atomically
from modalign.metrics.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Alignment", "LayerAlignment", "Score", "load_alignment"]

FORMAT = 1
COLUMNS = (
    "metric", "value", "low", "high", "interval", "chance", "chance_sd", "p", "threshold", "calibrated", "null",
    "relabellings", "rows", "seconds",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric's value.

    low, high: its interval, None where there is none; interval says of what: "population" (other items of the kind,
    from random parts of these), "these items" (all n of them, of which ``rows`` were searched), or "none".
    null: what chance gives, None where it was not asked for or costs too much. rows: items whose neighbours were
    searched. seconds: of this metric alone, its interval and null included.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    interval: str
    null: Null | None
    rows: int
    seconds: float

    def row(self) -> dict[str, Any]:
        null = self.null
        chance = (None,) * 7 if null is None else (
            null.mean, null.sd, null.p, null.threshold, null.calibrated, null.kind, null.relabellings
        )  # fmt: skip
        return dict(
            zip(
                COLUMNS,
                (self.metric, self.value, self.low, self.high, self.interval, *chance, self.rows, self.seconds),
                strict=True,
            )
        )


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Scores of two representations of n items.

    scores: in the order asked for; ``alignment["cka"]`` is one of them. settings: what was asked for. facts: what was
    found on the way: graphs (how they are proved), reciprocity, hubs, duplicates. cost: seconds of each stage.
    curves: {"k": mutual k-NN for every k' <= k, with its chance; "size": ``modalign.alignment.sampling.SizeCurve``}.
    notes: what a reader of the numbers should know.
    """

    scores: tuple[Score, ...]
    settings: dict[str, Any]
    facts: dict[str, Any]
    cost: dict[str, float]
    curves: dict[str, Any]
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = dataclasses.field(default_factory=provenance.collect)

    def __getitem__(self, metric: str) -> Score:
        for score in self.scores:
            if score.metric == metric:
                return score
        raise KeyError(f"no score of {metric!r}: there are {', '.join(score.metric for score in self.scores)}")

    def to_frame(self) -> pd.DataFrame:
        """A table with a row for each metric."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame([score.row() for score in self.scores], columns=list(COLUMNS))
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        return {
            "format": FORMAT,
            "scores": [score.row() for score in self.scores],
            **{name: getattr(self, name) for name in ("settings", "facts", "cost", "curves", "provenance")},
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> Path:
        """Write ``path``: .json (everything, ``load_alignment`` reads it) or .parquet (the table), whole or not at all.

        Raises ValueError for another ending.
        """
        target = Path(path)
        if target.suffix == ".json":
            text = _as_json(self.to_dict())
            write_atomically(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        elif target.suffix == ".parquet":
            write_atomically(target, lambda temporary: self.to_frame().to_parquet(temporary))
        else:
            raise ValueError(f"save: path must end in .json or .parquet, got {target}")
        return target

    def __repr__(self) -> str:
        n, k, level = (self.settings[name] for name in ("n", "k", "confidence"))
        lines = [f"Alignment of {n:,} items, k = {k}, {level:.0%} intervals"]
        width = max(len(score.metric) for score in self.scores)
        for score in self.scores:
            span = "" if score.low is None else f"  {score.low:.4f} to {score.high:.4f}"
            chance = ""
            if score.null is not None:
                p = f"p < {1e-12:g}" if score.null.p < 1e-12 else f"p = {score.null.p:.2g}"
                chance = f"  chance {score.null.mean:.4f}, {p}, calibrated {score.null.calibrated:.4f}"
            lines.append(f"  {score.metric:<{width}}  {score.value:.4f}{span}{chance}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclasses.dataclass(frozen=True)
class LayerAlignment:
    """One metric for every pair of layers.

    matrix: (L_x, L_y) lists. best: (layer of x, layer of y) of the highest. null: of the maximum over all pairs, from
    relabellings that all pairs share, so that looking at many pairs is paid for. settings, cost: as in ``Alignment``.
    """

    metric: str
    matrix: list[list[float]]
    best: tuple[int, int]
    null: Null | None
    settings: dict[str, Any]
    cost: dict[str, float]
    provenance: dict[str, Any] = dataclasses.field(default_factory=provenance.collect)

    @property
    def value(self) -> float:
        """The maximum."""
        return self.matrix[self.best[0]][self.best[1]]

    def to_frame(self) -> pd.DataFrame:
        """A table, layers of x down and layers of y across."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame(self.matrix)
        return frame

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, whole or not at all. Raises ValueError for an ending other than .json."""
        target = Path(path)
        if target.suffix != ".json":
            raise ValueError(f"save: path must end in .json, got {target}")
        text = _as_json(self.to_dict())
        write_atomically(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return target

    def __repr__(self) -> str:
        lowest = METRICS[self.metric].best == 0
        chance = ""
        if self.null is not None:
            null, extreme = self.null, "minimum" if lowest else "maximum"
            # no relabelling reached the value: fewer than one of so many could not be told
            sign = "<=" if null.relabellings and null.p * (null.relabellings + 1) < 1 + 1e-9 else "="
            chance = (
                f", chance of the {extreme} {null.mean:.4f}, p {sign} {null.p:.2g}, calibrated {null.calibrated:.4f}"
            )
        size = f"{len(self.matrix)} x {len(self.matrix[0])} layers"
        return f"{self.metric} of {size}: at {'least' if lowest else 'most'} {self.value:.4f} at {self.best}{chance}"


def _as_json(found: dict[str, Any]) -> str:
    """NumPy's numbers, which options may be, as Python's."""
    return json.dumps(found, indent=1, allow_nan=False, default=lambda number: number.item()) + "\n"


def load_alignment(path: str | Path) -> Alignment:
    """What ``Alignment.save`` wrote as JSON.

    Raises ValueError for a file that is something else.

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> path = modalign.align(x, x, ["cka"], k=3).save("/tmp/modalign-example.json")
        >>> modalign.load_alignment(path)["cka"].metric
        'cka'
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}")
        scores = tuple(_score(row) for row in found["scores"])
        rest = {name: found[name] for name in ("settings", "facts", "cost", "curves", "provenance")}
        return Alignment(scores, notes=tuple(found["notes"]), **rest)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must be a file that Alignment.save wrote, got another ({type(error).__name__}: {error})"
        ) from error


def _score(row: dict[str, Any]) -> Score:
    of_null = ("null", "chance", "chance_sd", "p", "threshold", "calibrated", "relabellings")
    null = None if row["null"] is None else Null(*(row[name] for name in of_null))
    own = {name: row[name] for name in COLUMNS if name not in (*of_null, "null")}
    return Score(null=null, **own)
