"""Data that are drawn anew for every seed of the runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from experiments.small import configuration
from modalign.data import TEST, TRAIN
from modalign.experiments import tuning
from modalign.experiments.sweep.cases import prepared
from modalign.experiments.sweep.config import load
from modalign.experiments.sweep.draws import Draws
from modalign.experiments.sweep.runner import run
from modalign.experiments.sweep.training import Run, Trainer

CONFIGS = Path(tuning.__file__).parent / "configs"


def drawn(seed: Any, seeds: Any, **changes: Any) -> Any:
    data = {"name": "synthetic", "redundancy": 4, "n": 600, "heterogeneity": 1, "information": False, "seed": seed}
    return configuration(cases=[{"label": "R = 4", "data": data}], seeds=seeds, **changes)


def test_every_seed_trains_on_a_draw_of_its_own(tmp_path: Path) -> None:
    together = pd.read_parquet(run(drawn("each", [0, 3]), tmp_path / "each") / "runs.parquet")
    for seed in (0, 3):
        alone = pd.read_parquet(run(drawn(seed, [seed]), tmp_path / str(seed)) / "runs.parquet")
        mine = together[together["seed"] == seed].reset_index(drop=True)
        for column in ("accuracy_2", "validation_accuracy_2", "chance_1"):  # counts, which rounding may tip
            assert mine[column].tolist() == pytest.approx(alone[column].tolist(), abs=0.03)
        assert mine["cka"].tolist() == pytest.approx(alone["cka"].tolist(), abs=0.02)
    again = run(drawn("each", [0, 3], training={"runs_at_once": 2}), tmp_path / "cut")
    assert pd.read_parquet(again / "runs.parquet")["cka"].tolist() == pytest.approx(together["cka"].tolist(), abs=1e-3)


def test_runs_on_draws_are_those_on_each_alone() -> None:
    sweep, (draws,) = prepared(drawn("each", [0, 3]))
    runs = [Run(0.3, 3), Run(0.0, 0), Run(1.0, 3)]
    both = Trainer(draws, runs, sweep, dtype=torch.float64)
    both.train_epoch()
    assert both.count(TRAIN) <= int((draws.first.split == TRAIN).sum())
    rows = torch.arange(20)
    for i, one in enumerate(runs):
        # the smallest draw decides how many pairs each has
        alone = Trainer(
            Draws({one.seed: draws.of(one.seed), -1: draws.first, -2: draws.of(3)}), [one], sweep, dtype=torch.float64
        )
        alone.train_epoch()
        assert torch.allclose(both.curves[i], alone.curves[0], atol=1e-9)
        assert torch.equal(both.test_accuracy[i], alone.test_accuracy[0])
        for m, embedded in enumerate(both.embed(rows)):
            assert torch.allclose(embedded[i], alone.embed(rows)[m][0])
    assert both.count(TEST) > 20


def test_a_folder_of_draws_knows_its_data(tmp_path: Path) -> None:
    prints = {prepared(drawn("each", seeds))[1][0].fingerprint() for seeds in ([0], [1], [0, 1])}
    assert len(prints) == 3
    sweep, _ = prepared(drawn("each", [0]))
    assert sweep.cases[0].data["seed"] == "each"
    folder = run(drawn("each", [0]), tmp_path / "sweep")
    assert load(folder / "config.yaml").cases[0].data["seed"] == "each"
    with pytest.raises(ValueError, match="other settings"):
        run(drawn(0, [0]), folder)


def test_a_search_draws_data_for_each_of_its_seeds(tmp_path: Path) -> None:
    budget = tuning.Budget(highest=1.0, first=3, rounds=0, seeds=2)
    tables = []
    for seed in ("each", 1000):
        folder = tuning.run(drawn(seed, 1), tmp_path / str(seed), budget)
        tables.append(pd.read_parquet(folder / "evaluations.parquet").set_index("seed")["accuracy_1"])
    assert tables[0].loc[1000].tolist() == pytest.approx(tables[1].loc[1000].tolist(), abs=0.03)
    assert tables[0].loc[1001].tolist() != tables[1].loc[1001].tolist()


@pytest.mark.parametrize("name", ["align", "synthetic"])
def test_packaged_sweeps_of_synthetic_data_hold_for_more_than_one_draw(name: str) -> None:
    sweep = load(CONFIGS / f"{name}.yaml")
    assert {case.data["seed"] for case in sweep.cases} == {"each"}
    assert len(sweep.seeds) >= 8
