"""The results of ``align`` and ``align_layers``: scores with their intervals and nulls, as text, tables and files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from modalign.alignment.nulls import Null
from modalign.common import provenance
from modalign.common.doors import Plot, drawing
from modalign.files.atomic import write_atomically
from modalign.files.documents import read_json
from modalign.files.paths import expanded, require_data
from modalign.metrics.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Alignment", "Chance", "LayerAlignment", "Score", "load_alignment"]

Json: TypeAlias = dict[str, Any]  # numbers, strings, lists and dictionaries, as JSON has them

FORMAT = 1  # of saved JSON files
NULL_COLUMNS = {
    "chance": "mean",
    "chance_sd": "sd",
    "p": "p",
    "threshold": "threshold",
    "calibrated": "calibrated",
    "null": "kind",
    "relabellings": "relabellings",
}  # column of a table -> attribute of Null
SCORE_COLUMNS = ("metric", "value", "low", "high", "interval", "best", "rows", "seconds")  # attributes of Score
COLUMNS = (*SCORE_COLUMNS[:6], *NULL_COLUMNS, *SCORE_COLUMNS[6:])
RECORDS = ("settings", "facts", "cost", "curves", "provenance")  # dictionaries of a saved Alignment
FEW_RELABELLINGS = 39  # below which the number is printed
SMALLEST_P = 1e-12  # below which a p-value is not printed


@dataclasses.dataclass(frozen=True)
class Chance:
    """The mean score of unrelated representations.

    Attributes:
        mean: float. The mean.
        relabellings: int. The number of random relabellings that it is the mean of; 0 for all of them, in closed form.
    """

    mean: float
    relabellings: int

    def __str__(self) -> str:
        few = f" (of {self.relabellings})" if 0 < self.relabellings < FEW_RELABELLINGS else ""
        return f"{self.mean:.4f}{few}"


@dataclasses.dataclass(frozen=True)
class Score:
    """The score of one metric, with its interval and its null.

    Attributes:
        metric: str. Name of the metric.
        value: float. The score.
        low: float or None. The lower end of the confidence interval; None where there is none.
        high: float or None. The upper end.
        interval: str. What the interval is for: "population" (the score of other items of the same population),
            "these items" (the score of all n items, of which ``rows`` were searched), or "none".
        null: ``Null`` or None. The distribution of the score that chance gives; None where it was not asked for, is not
            known of a sample, or would take too long.
        chance: ``Chance`` or None. The mean score that chance gives: that of the null, or of fewer relabellings or in
            closed form where there is no null; None where ``null="none"`` was asked for.
        rows: int. Number of items whose neighbours were searched.
        seconds: float. Time spent on this metric alone, its interval and null included.
        best: float. The best score that the rows allow: that of two equal representations, or less where neighbours
            tie, since two random orders of the same ties differ.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    interval: str
    null: Null | None
    rows: int
    seconds: float
    best: float = 1.0
    chance: Chance | None = None

    def row(self) -> Json:
        """Return the score as a row of the table that ``Alignment.to_frame`` returns."""
        score = {name: getattr(self, name) for name in SCORE_COLUMNS}
        null = {column: getattr(self.null, attribute, None) for column, attribute in NULL_COLUMNS.items()}
        if self.chance is not None:
            null |= {"chance": self.chance.mean, "relabellings": self.chance.relabellings}
        return {name: (score | null)[name] for name in COLUMNS}


@dataclasses.dataclass(frozen=True)
class Alignment:
    """The scores of two representations of n items.

    ``alignment["cka"]`` is the score of one metric.

    Attributes:
        scores: tuple of ``Score``, in the order asked for.
        settings: dict. What was asked for.
        facts: dict. What the search recorded of the items: how the graphs are proved, reciprocity, hubs, duplicates and
            zero rows.
        cost: dict. Seconds of each stage.
        curves: dict. "k": mutual k-NN for every number of neighbours up to k, beside its mean by chance; "size": the
            ``modalign.alignment.sampling.SizeCurve`` as a dict, if asked for.
        notes: tuple of str. What a reader of the scores should know.
        provenance: dict. Versions, machine, commit, time and command.
    """

    scores: tuple[Score, ...]
    settings: Json
    facts: Json
    cost: dict[str, float]
    curves: Json
    notes: tuple[str, ...] = ()
    provenance: Json = dataclasses.field(default_factory=provenance.collect)

    def __getitem__(self, metric: str) -> Score:
        for score in self.scores:
            if score.metric == metric:
                return score
        raise KeyError(f"no score of {metric!r}: there are {', '.join(score.metric for score in self.scores)}")

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each metric."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame([score.row() for score in self.scores], columns=list(COLUMNS))
        return frame

    def to_dict(self) -> Json:
        """Return everything in the types of JSON."""
        return {
            "format": FORMAT,
            "scores": [score.row() for score in self.scores],
            **{name: getattr(self, name) for name in RECORDS},
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> Path:
        """Write the result to a file, whole or not at all.

        Args:
            path: str or Path. A name that ends in .json (everything; ``load_alignment`` reads it), .parquet (the
                table of ``to_frame``) or .html (a page, with its pictures in the folder NAME-figures).

        Returns:
            The path.

        Raises:
            ValueError: If the name ends in something else.
        """
        target = expanded(path)
        if target.suffix.lower() == ".json":
            _write_json(self.to_dict(), target)
        elif target.suffix.lower() == ".parquet":
            write_atomically(target, lambda temporary: self.to_frame().to_parquet(temporary))
        elif target.suffix.lower() == ".html":
            _write_page(self, target)
        else:
            raise ValueError(f"save: path must end in .json, .parquet or .html, got {target}")
        return target

    def plot(self) -> Plot:
        """Return a picture of every score with its interval and the mean score by chance.

        A notebook shows the picture; ``save`` writes it as .svg or .png.
        """
        plot: Plot = drawing("alignment_plot")(self)
        return plot

    def _repr_html_(self) -> str:
        """Return the scores as an HTML table for a notebook."""
        html: str = drawing("alignment_html")(self)
        return html

    def __repr__(self) -> str:
        n, k, level = (self.settings[name] for name in ("n", "k", "confidence"))
        lines = [f"Alignment of {n:,} items, k = {k}, {level:.0%} intervals"]
        width = max(len(score.metric) for score in self.scores)
        for score in self.scores:
            interval = "" if score.low is None else f"  {score.low:.4f} to {score.high:.4f}"
            chance = "" if score.chance is None else f"  chance {score.chance}"
            if score.null is not None:
                chance += f", {_p_in_words(score.null)}, calibrated {score.null.calibrated:.4f}"
            lines.append(f"  {score.metric:<{width}}  {score.value:.4f}{interval}{chance}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclasses.dataclass(frozen=True)
class LayerAlignment:
    """The scores of one metric for every pair of layers.

    Attributes:
        metric: str. Name of the metric.
        matrix: list of shape (L_x, L_y). The scores.
        best: pair of int. The layer of x and the layer of y with the best score, from 0.
        null: ``Null`` or None. The null of the best score of all pairs, from relabellings that all pairs share; it
            corrects for the number of pairs.
        settings: dict. What was asked for.
        cost: dict. Seconds of each stage.
        possible: float. The best score that the best pair allows; where neighbours tie it is less than that of two
            equal representations, since two random orders of the same ties differ.
        notes: tuple of str. What a reader of the scores should know.
        provenance: dict. Versions, machine, commit, time and command.
    """

    metric: str
    matrix: list[list[float]]
    best: tuple[int, int]
    null: Null | None
    settings: Json
    cost: dict[str, float]
    possible: float = 1.0
    notes: tuple[str, ...] = ()
    provenance: Json = dataclasses.field(default_factory=provenance.collect)

    @property
    def value(self) -> float:
        """The best score: the highest, or the lowest of a distance."""
        return self.matrix[self.best[0]][self.best[1]]

    def to_frame(self) -> pd.DataFrame:
        """Return a table, layers of x down and layers of y across."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame(self.matrix)
        return frame

    def to_dict(self) -> Json:
        """Return everything in the types of JSON."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def save(self, path: str | Path) -> Path:
        """Write the result to a .json file, the scores to a .parquet file or a page to an .html file; return the path.

        Raises:
            ValueError: If the name ends in something else.
        """
        target = expanded(path)
        if target.suffix.lower() == ".json":
            _write_json(self.to_dict(), target)
        elif target.suffix.lower() == ".parquet":
            frame = self.to_frame().rename(columns=str)  # files name their columns
            write_atomically(target, frame.to_parquet)
        elif target.suffix.lower() == ".html":
            _write_page(self, target)
        else:
            raise ValueError(f"save: path must end in .json, .parquet or .html, got {target}")
        return target

    def plot(self) -> Plot:
        """Return the scores of all pairs of layers as a heat map, which a notebook shows and ``save`` writes."""
        plot: Plot = drawing("alignment_plot")(self)
        return plot

    def _repr_html_(self) -> str:
        """Return the scores as an HTML table for a notebook."""
        html: str = drawing("alignment_html")(self)
        return html

    def __repr__(self) -> str:
        lower_is_closer = METRICS[self.metric].best == 0
        chance = ""
        if self.null is not None:
            null, extreme = self.null, "minimum" if lower_is_closer else "maximum"
            chance = f", chance of the {extreme} {null.mean:.4f}, {_p_in_words(null)}, calibrated {null.calibrated:.4f}"
        size = f"{len(self.matrix)} x {len(self.matrix[0])} layers"
        extreme = "lowest" if lower_is_closer else "highest"
        line = f"{self.metric} of {size}: {extreme} {self.value:.4f} at {self.best}{chance}"
        return "\n".join([line, *(f"  note: {note}" for note in self.notes)])


def _p_in_words(null: Null) -> str:
    if null.p < SMALLEST_P:
        return f"p < {SMALLEST_P:g}"
    # no relabelling reached the value: p is at most 1 / (R + 1)
    sign = "<=" if null.relabellings and null.p * (null.relabellings + 1) < 1 + 1e-9 else "="
    return f"p {sign} {null.p:.2g}"


def load_alignment(path: str | Path) -> Alignment:
    """Load the result that ``Alignment.save`` wrote as JSON.

    Args:
        path: str or Path. The .json file.

    Returns:
        ``Alignment``.

    Raises:
        ValueError: If the file is something else, or damaged.

    Examples:
        >>> import numpy as np, modalign
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> path = modalign.align(x, x, ["cka"], k=3).save("/tmp/modalign-example.json")
        >>> modalign.load_alignment(path)["cka"].metric
        'cka'
    """
    try:
        saved = read_json(require_data(expanded(path)), finite=True)  # as it is written
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']}")
        scores = tuple(_score_of_row(row) for row in saved["scores"])
        return Alignment(scores, notes=tuple(saved["notes"]), **{name: saved[name] for name in RECORDS})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} must be a file that Alignment.save wrote, got another ({type(error).__name__}: {error})"
        ) from error


def _score_of_row(row: Json) -> Score:
    null = None
    if isinstance(row["value"], bool) or not isinstance(row["value"], (int, float)):
        raise TypeError(f"the value of {row['metric']} is {row['value']!r}")
    if row["null"] is not None:
        null = Null(**{attribute: row[column] for column, attribute in NULL_COLUMNS.items()})
    # files of earlier versions do not have the best score: it was the metric's
    known = {"best": METRICS[row["metric"]].best if row["metric"] in METRICS else 1.0, **row}
    chance = None if row["chance"] is None else Chance(row["chance"], row["relabellings"] or 0)
    return Score(null=null, chance=chance, **{name: known[name] for name in SCORE_COLUMNS})


def _write_page(result: Alignment | LayerAlignment, target: Path) -> None:
    """Write a page and its pictures; the pictures go first, since a folder of the user's is refused."""
    drawing("alignment")(result, target)


def _write_json(record: Json, target: Path) -> None:
    """Write a record; NumPy's numbers, which settings may be, are written as Python's."""
    text = json.dumps(record, indent=1, allow_nan=False, default=lambda number: number.item()) + "\n"
    write_atomically(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))
