"""Columns of a sweep's two tables, runs.parquet and curves.parquet: names, dtypes and meanings.

This is the only place that spells the columns. Writing (``chunks``, ``runner``), reading (``results``), trackers and
the table in docs/experiments.md derive from it.

A *predictor* is a model whose accuracy a sweep records: the encoder and task head of one modality, or the fused model.
Its columns end in its suffix, ``_1``, ``_2``, ... or ``_fused``. The alignment of modalities 1 and 2 has no suffix;
that of modalities 1 and 3 ends in ``_1_3``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

__all__ = [
    "ALIGNMENT",
    "CURVES",
    "KEY",
    "RUNS",
    "Column",
    "alignment_column",
    "columns_table",
    "curve_columns",
    "modality_pairs",
    "predictor_suffixes",
    "run_columns",
]

PREDICTOR, PAIR = "<modality>", "_<pair>"  # placeholders in the names of columns


@dataclass(frozen=True)
class Column:
    """A column of a table, or one for each predictor or pair of modalities where the name has a placeholder.

    Args:
        name: Name in the file, with ``<modality>`` or ``_<pair>`` where there are several.
        dtype: "text", "int64" or "float64".
        meaning: One sentence for the documentation.
        measured: False for a chance level, which follows from the data and the settings.
        required: False for a column that early versions did not write; readers do without it.
    """

    name: str
    dtype: str
    meaning: str
    measured: bool = True
    required: bool = True


KEY = (
    Column("case", "text", "Label of the case."),
    Column("strength", "float64", "Strength of the alignment term."),
    Column("seed", "int64", "Seed of the run."),
)
RUNS = (
    *KEY,
    Column(
        f"accuracy_{PREDICTOR}",
        "float64",
        "Score on the test pairs after the epoch with the predictor's best validation score.",
    ),
    Column(f"validation_accuracy_{PREDICTOR}", "float64", "The best score on the validation pairs over all epochs."),
    Column(f"mutual_knn{PAIR}", "float64", "Mutual k-NN of the compared test pairs' embeddings after the last epoch."),
    Column(f"cka{PAIR}", "float64", "CKA of the same embeddings; missing where an encoder's output is constant."),
    Column(f"unbiased_cka{PAIR}", "float64", "Unbiased CKA of the same embeddings."),
    Column(f"svcca{PAIR}", "float64", "SVCCA of the same embeddings."),
    Column(
        f"chance_{PREDICTOR}", "float64", "Score on the test pairs of the best constant prediction.", measured=False
    ),
    Column("mutual_knn_chance", "float64", "Mutual k-NN of unrelated embeddings, k / (n - 1).", measured=False),
    Column("seconds", "float64", "Training and measuring time of the run's chunk, divided by its runs."),
    Column(
        f"best_epoch_{PREDICTOR}", "int64", "The first epoch with the best validation score, from 1.", required=False
    ),
    Column(f"last_accuracy_{PREDICTOR}", "float64", "Score on the test pairs after the last epoch.", required=False),
)
CURVES = (
    *KEY,
    Column("epoch", "int64", "Number of the epoch, from 1."),
    Column(f"task_loss_{PREDICTOR}", "float64", "Task loss, the mean over the steps of the epoch."),
    Column("alignment_loss", "float64", "Alignment loss before it is weighted, the mean over the steps."),
    Column("gradient_norm_task", "float64", "Norm of the task losses' gradient at the encoders' outputs."),
    Column("gradient_norm_alignment", "float64", "Norm of the unweighted alignment loss's gradient at the same place."),
    Column(f"validation_accuracy_{PREDICTOR}", "float64", "Score on the validation pairs after the epoch."),
    Column("alignment_weight", "float64", "Weight of the alignment term, the mean over the steps.", required=False),
)
# measures of alignment, which have one column for each pair of modalities
ALIGNMENT = tuple(column.name.removesuffix(PAIR) for column in RUNS if column.name.endswith(PAIR))


def predictor_suffixes(modalities: int, fused: bool) -> list[str]:
    """Return the suffixes of the predictors' columns: "1", "2", ... and "fused" where there is a fused model."""
    return [str(number) for number in range(1, modalities + 1)] + (["fused"] if fused else [])


def modality_pairs(modalities: int) -> list[tuple[int, int]]:
    """Return every pair of modalities, counted from 0, in the order of the columns."""
    return list(itertools.combinations(range(modalities), 2))


def alignment_column(measure: str, pair: tuple[int, int]) -> str:
    """Return the column that holds ``measure`` for a pair of modalities, counted from 0.

    Examples:
        >>> from modalign.experiments.sweep.schema import alignment_column
        >>> alignment_column("cka", (0, 1)), alignment_column("cka", (0, 2))
        ('cka', 'cka_1_3')
    """
    return measure if pair == (0, 1) else f"{measure}_{pair[0] + 1}_{pair[1] + 1}"


def run_columns(suffixes: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[Column]:
    """Return the columns of runs.parquet in the order of the file.

    Modalities 1 and 2 and their pair come first, in the order of ``RUNS``. The measured columns of further predictors
    and then of further pairs follow, then the chance levels of further predictors.

    Args:
        suffixes: Suffixes of all predictors, from ``predictor_suffixes``.
        pairs: All pairs of modalities, from ``modality_pairs``.
    """
    columns = _expanded(RUNS, suffixes[:2], pairs[:1])
    measured = [column for column in RUNS if column.measured and _has_placeholder(column)]
    for suffix in suffixes[2:]:
        columns += _expanded(measured, [suffix], [])
    for pair in pairs[1:]:
        columns += _expanded(measured, [], [pair])
    chance = [column for column in RUNS if not column.measured and PREDICTOR in column.name]
    return columns + _expanded(chance, suffixes[2:], [])


def columns_table(columns: Sequence[Column]) -> str:
    """Return columns with their dtypes and meanings as a Markdown table.

    Examples:
        >>> from modalign.experiments.sweep.schema import RUNS, columns_table
        >>> print(columns_table(RUNS[:1]))
        | column | dtype | meaning |
        |---|---|---|
        | `case` | text | Label of the case. |
    """
    rows = [f"| `{column.name}` | {column.dtype} | {column.meaning} |" for column in columns]
    return "\n".join(["| column | dtype | meaning |", "|---|---|---|", *rows])


def curve_columns(suffixes: Sequence[str]) -> list[Column]:
    """Return the columns of curves.parquet in the order of the file, for predictors with these suffixes."""
    return _expanded(CURVES, suffixes, [])


def _has_placeholder(column: Column) -> bool:
    return PREDICTOR in column.name or PAIR in column.name


def _expanded(columns: Sequence[Column], suffixes: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[Column]:
    """Write out the columns for these predictors and pairs; a name without a placeholder stays as it is."""
    expanded = []
    for column in columns:
        if PREDICTOR in column.name:
            names = [column.name.replace(PREDICTOR, suffix) for suffix in suffixes]
        elif PAIR in column.name:
            names = [alignment_column(column.name.removesuffix(PAIR), pair) for pair in pairs]
        else:
            names = [column.name]
        expanded += [replace(column, name=name) for name in names]
    return expanded
