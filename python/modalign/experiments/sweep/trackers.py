"""A finished sweep's runs for the trackers people compare runs in: TensorBoard and Weights & Biases.

Every run becomes one of theirs: its settings, its curves epoch by epoch, and its results.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from modalign.experiments.sweep.folder import Folder

__all__ = ["TRACKERS", "log_runs", "require_tracker"]

KEY = ["case", "strength", "seed"]
TRACKERS = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # and the package that writes its files


class Run(NamedTuple):
    name: str
    settings: dict[str, Any]
    curve: pd.DataFrame
    results: dict[str, float]


def require_tracker(name: str) -> None:
    """Raises ValueError for a tracker that is not known, or whose package is not installed."""
    import importlib.util

    if name not in TRACKERS:
        raise ValueError(f"--log must be {' or '.join(TRACKERS)}, got {name}")
    if importlib.util.find_spec(TRACKERS[name]) is None:
        raise ValueError(f"--log {name} needs {TRACKERS[name]} (pip install 'modalign[log]')")


def log_runs(folder: Path, tracker: str) -> Path:
    """Write the runs of the finished sweep in ``folder`` for ``tracker``, and return where they are.

    tracker: "tensorboard" (``tensorboard --logdir`` shows it) or "wandb" (offline; ``wandb sync`` uploads it, nothing
        else does). What an earlier call wrote is replaced at the end, so that a killed one leaves it whole.
    Raises: ValueError for another tracker, one whose package is not installed, or a sweep that is not finished.
    """
    require_tracker(tracker)
    if not Folder(folder).finished:
        raise ValueError(f"{folder} holds no finished sweep to log")
    place, partial = folder / tracker, folder / f"{tracker}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    {"tensorboard": _tensorboard, "wandb": _wandb}[tracker](folder, partial)
    shutil.rmtree(place, ignore_errors=True)
    return partial.rename(place)


def _runs(folder: Path) -> Iterator[Run]:
    table, curves = pd.read_parquet(folder / "runs.parquet"), pd.read_parquet(folder / "curves.parquet")
    by_run = curves.groupby(KEY, sort=False)
    for row in json.loads(table.to_json(orient="records", double_precision=15)):
        settings = {name: row.pop(name) for name in KEY}
        results = {name: value for name, value in row.items() if isinstance(value, int | float)}
        curve = by_run.get_group(tuple(settings.values())).drop(columns=KEY)
        yield Run(
            f"{settings['case']}, strength {settings['strength']}, seed {settings['seed']}", settings, curve, results
        )


def _epochs(run: Run) -> Iterator[tuple[int, dict[str, float]]]:
    for row in run.curve.to_dict("records"):
        epoch = int(row.pop("epoch"))
        yield epoch, {str(name): float(value) for name, value in row.items() if math.isfinite(value)}


def _tensorboard(folder: Path, place: Path) -> None:
    from tensorboardX import SummaryWriter

    for run in _runs(folder):
        with SummaryWriter(str(place / run.name.replace("/", "-"))) as writer:
            writer.add_text("settings", json.dumps(run.settings))
            for epoch, values in _epochs(run):
                for name, value in values.items():
                    writer.add_scalar(f"curve/{name}", value, epoch)
            for name, value in run.results.items():
                writer.add_scalar(f"result/{name}", value)


def _wandb(folder: Path, place: Path) -> None:
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
