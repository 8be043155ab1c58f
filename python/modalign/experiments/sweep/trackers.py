"""Runs of a finished sweep for the trackers in which people compare runs: TensorBoard and Weights & Biases.

Every run becomes a run of the tracker: its settings, its curves epoch by epoch, and its results.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from modalign.common.names import suggestion
from modalign.experiments.sweep.folder import Folder
from modalign.experiments.sweep.schema import KEY
from modalign.files.checkpoint import Checkpoint

__all__ = ["TRACKERS", "log_runs", "require_tracker"]

KEYS = [column.name for column in KEY]


class Run(NamedTuple):
    """A run of the sweep: name and settings, a row of values for each epoch, and its results."""

    name: str
    settings: dict[str, object]
    curve: pd.DataFrame
    results: dict[str, float]


def require_tracker(name: str) -> None:
    """Check that a tracker is known and its package installed; ValueError otherwise."""
    if name not in TRACKERS:
        raise ValueError(f"--log must be {' or '.join(TRACKERS)}, got {name}{suggestion(name, TRACKERS)}")
    package = TRACKERS[name].package
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"--log {name} needs {package} (pip install 'modalign[log]')")


def log_runs(folder: Path, tracker: str) -> Path:
    """Write the runs of a finished sweep for a tracker.

    What an earlier call wrote is replaced at the end, and nothing else: files that the user added there stay.

    Args:
        folder: Folder of the sweep.
        tracker: "tensorboard" (``tensorboard --logdir`` shows it) or "wandb" (offline; ``wandb sync`` uploads it,
            nothing else does).

    Returns:
        The folder that the tracker reads.

    Raises:
        ValueError: If the tracker is not known, its package is not installed, the sweep is not finished, or there is a
            file of the user's in place of one of the tracker's.
    """
    require_tracker(tracker)
    place = Folder(folder)
    if not place.finished:
        raise ValueError(f"{folder} holds no finished sweep to log")
    with place.claimed(), tempfile.TemporaryDirectory() as partial:
        TRACKERS[tracker].write(folder, Path(partial))
        _put_in_place(Path(partial), tracker, place.checkpoint)
    return folder / tracker


def _put_in_place(partial: Path, tracker: str, files: Checkpoint) -> None:
    """Copy the files below ``partial`` to the folder of the tracker, in place of those of an earlier call.

    Links are left out: wandb's lead to its latest run.
    """
    found = [path for path in sorted(partial.rglob("*")) if path.is_file() and not path.is_symlink()]
    written = {f"{tracker}/{path.relative_to(partial).as_posix()}": path for path in found}
    for name in written:
        files.require_free(name)
    files.drop(*(name for name in files.mark.files if name.startswith(f"{tracker}/")))
    for name, path in written.items():
        files.write(name, functools.partial(shutil.copyfile, path))


def _runs(folder: Path) -> Iterator[Run]:
    table, curves = pd.read_parquet(folder / "runs.parquet"), pd.read_parquet(folder / "curves.parquet")
    by_run = curves.groupby(KEYS, sort=False)
    for row in json.loads(table.to_json(orient="records", double_precision=15)):
        settings = {name: row.pop(name) for name in KEYS}
        results = {name: value for name, value in row.items() if isinstance(value, int | float)}
        curve = by_run.get_group(tuple(settings.values())).drop(columns=KEYS)
        name = f"{settings['case']}, strength {settings['strength']}, seed {settings['seed']}"
        yield Run(name, settings, curve, results)


def _epochs(run: Run) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the number of each epoch and its finite values."""
    for row in run.curve.to_dict("records"):
        epoch = int(row.pop("epoch"))
        yield epoch, {str(name): float(value) for name, value in row.items() if math.isfinite(value)}


def _write_tensorboard(folder: Path, place: Path) -> None:
    from tensorboardX import SummaryWriter

    for run in _runs(folder):
        with SummaryWriter(str(place / run.name.replace("/", "-"))) as writer:
            writer.add_text("settings", json.dumps(run.settings))
            for epoch, values in _epochs(run):
                for name, value in values.items():
                    writer.add_scalar(f"curve/{name}", value, epoch)
            for name, value in run.results.items():
                writer.add_scalar(f"result/{name}", value)


def _write_wandb(folder: Path, place: Path) -> None:
    import wandb

    settings = wandb.Settings(mode="offline", silent=True, console="off", x_disable_stats=True)
    for run in _runs(folder):
        with wandb.init(
            project=folder.resolve().name,
            name=run.name,
            group=run.settings["case"],
            config=run.settings,
            dir=os.fspath(place),
            settings=settings,
            reinit="finish_previous",
        ) as logged:
            for epoch, values in _epochs(run):
                logged.log(values, step=epoch)
            logged.summary.update(run.results)


class Tracker(NamedTuple):
    """A tracker: the package that it needs, and the function that writes the runs of a sweep into a folder."""

    package: str
    write: Callable[[Path, Path], None]


TRACKERS = {"tensorboard": Tracker("tensorboardX", _write_tensorboard), "wandb": Tracker("wandb", _write_wandb)}
