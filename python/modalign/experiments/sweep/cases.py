"""Cases of a sweep: data sets are loaded and checked against the settings before anything trains."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from modalign import data as data_sets
from modalign.data import TEST, TRAIN, VALIDATION, PairedDataset, require_trainable
from modalign.experiments.sweep.config import Case, Sweep
from modalign.experiments.sweep.draws import EACH, Draws
from modalign.experiments.sweep.randomness import label_budget
from modalign.experiments.sweep.training import inputs_of

__all__ = ["notes_on", "prepared"]


def prepared(sweep: Sweep) -> tuple[Sweep, list[Draws]]:
    """Load the data sets of a sweep.

    Returns:
        The sweep with the defaults of its data sets written out, and the data of each case.

    Raises:
        ValueError: If data cannot be loaded or trained on, or cannot meet the settings.
    """
    data = [_load(case, f"cases[{i}]", sweep.seeds) for i, case in enumerate(sweep.cases)]
    for case, draws in zip(sweep.cases, data, strict=True):
        _require_names(case, draws.first)
        for pairs in draws.sets.values():
            _require_sizes(case, pairs, sweep)
    return _with_defaults(sweep, [draws.first for draws in data]), data


def notes_on(sweep: Sweep, data: Sequence[Draws]) -> list[str]:
    """Return sentences about the data that a reader of the results should know."""
    notes = []
    for case, draws in zip(sweep.cases, data, strict=True):
        pairs = draws.first
        known = pairs.has_label()
        if not bool(known.all()):
            notes.append(
                f"case {case.label!r}: {int((~known).sum()):,} of {int((pairs.split == TRAIN).sum()):,} training pairs "
                "have no label; they enter the alignment term alone"
            )
        training, test = set(_digests(pairs, TRAIN)), _digests(pairs, TEST)
        repeated = sum(digest in training for digest in test)
        if repeated:
            notes.append(
                f"case {case.label!r}: {repeated} of {len(test)} test pairs are training pairs, too, value for value"
            )
    return notes


def _digests(pairs: PairedDataset, part: int) -> list[bytes]:
    """Return a digest of the values of all modalities for each pair of a part of the split."""
    tables = [x[pairs.split == part].contiguous().numpy() for x in inputs_of(pairs)]
    return [hashlib.sha256(b"".join(row.tobytes() for row in rows)).digest() for rows in zip(*tables, strict=True)]


def _load(case: Case, key: str, seeds: Sequence[int]) -> Draws:
    settings = dict(case.data)
    name = str(settings.pop("name"))
    each = settings.get("seed") == EACH
    try:
        if not each:
            return Draws({None: data_sets.load(name, **settings)})
        return Draws({seed: data_sets.load(name, **{**settings, "seed": seed}) for seed in seeds})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{key}.data ({case.label}): {error}") from error


def _with_defaults(sweep: Sweep, data: Sequence[PairedDataset]) -> Sweep:
    """Return the sweep with the settings and the names of modalities that its data sets have by default."""
    cases = tuple(
        case.model_copy(
            update={
                "data": {"name": case.data["name"], **case.data, **pairs.settings, **_drawn(case)},
                "modalities": case.modalities or tuple(pairs.modalities),
            }
        )
        for case, pairs in zip(sweep.cases, data, strict=True)
    )
    return sweep.model_copy(update={"cases": cases})


def _drawn(case: Case) -> dict[str, object]:
    return {"seed": EACH} if case.data.get("seed") == EACH else {}


def _require_names(case: Case, pairs: PairedDataset) -> None:
    """Check that the names of modalities are as many as there are, and different."""
    names, defaults = case.modalities, pairs.modalities
    if names is None or tuple(names) == tuple(defaults):  # a data set may call both alike
        return
    if len(names) != len(defaults) or len(set(names)) < len(names):
        raise ValueError(
            f"case {case.label!r}: modalities must be {len(defaults)} different names, for {', '.join(defaults)}, "
            f"got {', '.join(names)}"
        )


def _require_sizes(case: Case, pairs: PairedDataset, sweep: Sweep) -> None:
    """Check that there are pairs and labels enough for training, for choosing an epoch and for the metrics."""
    sizes = {part: int((pairs.split == part).sum()) for part in (TRAIN, VALIDATION, TEST)}
    if sizes[TRAIN] < 2 or not sizes[VALIDATION] or not sizes[TEST]:
        raise ValueError(
            f"case {case.label!r} has {sizes[TRAIN]} training, {sizes[VALIDATION]} validation and {sizes[TEST]} test "
            "pairs, too few: 2, 1 and 1 are needed at least"
        )
    try:
        require_trainable(pairs)
    except ValueError as error:
        raise ValueError(f"case {case.label!r}: {str(error).removeprefix('require_trainable: ')}") from None
    compared = min(sizes[TEST], sweep.metrics.pairs)
    if not sweep.metrics.k < compared:
        raise ValueError(
            f"metrics.k must be less than the number of test pairs compared, got {sweep.metrics.k} for the {compared} "
            f"of case {case.label!r}"
        )
    try:
        label_budget(sweep.training.labels, int(pairs.has_label()[pairs.split == TRAIN].sum()))
    except ValueError as error:
        raise ValueError(f"case {case.label!r}: {error}") from None
