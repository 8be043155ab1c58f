"""A sweep on a Ray cluster ends with the bits of the threads, also where a worker dies."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import psutil
import pytest

from experiments.small import configuration
from modalign.experiments.sweep import cluster
from modalign.experiments.sweep.runner import run


@pytest.mark.parametrize("module", [None, ModuleType("ray")], ids=["nothing", "a folder of that name"])
def test_a_missing_ray_is_named(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", module)
    with pytest.raises(ModuleNotFoundError, match="--ray needs Ray: pip install ray"):
        run(configuration(), tmp_path, ray="local")


def test_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    sweep = configuration(training={"epochs": 60, "runs_at_once": 2})
    killed: list[int] = []
    finished = threading.Event()

    def kill() -> None:
        while not killed and not finished.wait(0.02):  # Ray may take a minute to start
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any("ray::_train" in word for word in process.cmdline()):
                        time.sleep(0.3)
                        process.kill()
                        killed.append(process.pid)
                        return

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with_ray = run(sweep, tmp_path / "ray", ray="local")
    finished.set()
    folders = with_ray, run(sweep, tmp_path / "threads")
    assert killed
    for name in ("runs", "curves"):
        one, two = (
            pd.read_parquet(folder / f"{name}.parquet").drop(columns="seconds", errors="ignore") for folder in folders
        )
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_cluster_that_vanishes_is_an_error_and_the_next_call_continues_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SILENCE", 3.0)
    sweep = configuration(training={"epochs": 60, "runs_at_once": 2})

    finished = threading.Event()

    def end_the_head() -> None:
        while not finished.wait(0.02):
            if any((tmp_path / "ray" / "parts").glob("*.pt")):
                for process in psutil.Process().children(recursive=True):
                    if process.name() in ("gcs_server", "raylet"):
                        process.kill()
                return

    thread = threading.Thread(target=end_the_head, daemon=True)
    thread.start()
    with pytest.raises(ConnectionError, match=r"the Ray cluster at .* vanished; what is finished stays, run again"):
        run(sweep, tmp_path / "ray", ray="local")
    finished.set()
    assert any((tmp_path / "ray" / "parts").glob("*.pt"))
    one, two = (pd.read_parquet(run(sweep, tmp_path / name) / "runs.parquet") for name in ("ray", "threads"))
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), two.drop(columns="seconds"), check_exact=True)
