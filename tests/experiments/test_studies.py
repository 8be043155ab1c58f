"""Studies: trained side by side as alone, resumed to the same bits, and their verdicts by the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from threadpoolctl import threadpool_limits
from torch import nn

from experiments.small import TINY, configuration, hidden_numbers
from modalign.cli.tables import print_optima
from modalign.data import TRAIN, synthetic
from modalign.encoders import MLPConfig, build_encoder, seeded_module
from modalign.experiments import advice as advise
from modalign.experiments import tuning as tune
from modalign.experiments.studies import emergence
from modalign.experiments.studies import strength as align
from modalign.experiments.studies.layer_pairs import MEASURES
from modalign.experiments.studies.unimodal import Fit, UnimodalTrainer, every_layer
from modalign.experiments.sweep import cases
from modalign.experiments.sweep.chunks import train_chunk as train
from modalign.experiments.sweep.randomness import batch_order, initial_seed
from modalign.experiments.sweep.runner import run as run_sweep
from modalign.report.pages import emergence as emergence_page
from modalign.report.pages import strength as align_page
from modalign.report.pages import tune as tune_page

SMALL = emergence.Grid(
    uniqueness=(0, 4, 8), heterogeneity=(1, 3, 5), seeds=(2, 22), depths_2=(1, 2, 3), n=1500, epochs_1=2, epochs_2=2,
    batch_size=256, trials=2, trials_at_once=1, compared=200, k=5,
)  # fmt: skip


def test_fits_side_by_side_end_as_alone() -> None:
    """Against torch's own AdamW and gradient clipping, one encoder at a time."""
    data = [synthetic(redundancy=r, n=700, heterogeneity=1, information=False) for r in (0, 8)]
    config = MLPConfig(kind="mlp", width=6, depth=2, dim=5)
    fits = [Fit(0, 3, 0.01, 0.0), Fit(1, 3, 0.03, 0.1), Fit(1, 9, 0.003, 0.01)]
    trainer = UnimodalTrainer(data, 1, config, batch_size=64, clip=0.5, dtype=torch.float64)
    trained = trainer.train(fits, 3)
    for i, fit in enumerate(fits):
        pairs = data[fit.data]
        encoder = build_encoder(config, pairs.y, initial_seed("encoder", fit.seed, 1)).double()
        head = seeded_module(lambda: nn.Linear(5, 4), initial_seed("head", fit.seed, 1)).double()
        parameters = [*encoder.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=fit.learning_rate, weight_decay=fit.weight_decay)
        x, labels = trainer.inputs[TRAIN][fit.data].double(), trainer.labels[TRAIN][fit.data]
        best = (-1.0, -1.0, 0)
        for epoch in range(3):
            order = batch_order(fit.seed, epoch, len(x))
            for start in range(0, len(x) - 63, 64):
                rows = order[start : start + 64]
                optimizer.zero_grad()
                F.cross_entropy(head(encoder(x[rows])), labels[rows]).backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()
            scores = [
                float((head(encoder(trainer.inputs[part][fit.data].double())).argmax(1)
                       == trainer.labels[part][fit.data]).double().mean())
                for part in (1, 2)
            ]  # fmt: skip
            if scores[0] > best[0]:
                best = (*scores, epoch + 1)  # type: ignore[assignment]
        assert (float(trained.validation[i]), float(trained.test[i]), int(trained.epoch[i])) == pytest.approx(best)
    layers = every_layer(config, trained, 1, data[1].y.double())
    assert [layer.shape[1] for layer in layers] == [6, 5]


def test_emergence_ends_with_tables_verdicts_and_a_page(tmp_path: Path) -> None:
    folder = emergence.run(SMALL, tmp_path / "study")
    models, alignment = (pd.read_parquet(folder / f"{name}.parquet") for name in ("models", "alignment"))
    assert len(models) == 6 + 3 * 3 * 3 * 2
    assert len(alignment) == 3 * 3 * 2 * (1 + 2 + 3)  # every layer of encoder 2 with the one layer of encoder 1
    assert alignment[list(MEASURES)].notna().all().all()
    assert (models["best_epoch"].between(1, 2)).all()
    claims = json.loads((folder / "claims.json").read_text())
    assert {claim["about"] if "about" in claim else claim["source"] for claim in claims} == {
        "uniqueness", "heterogeneity", "correlations", "heat-map",
    }  # fmt: skip
    assert all(claim["verdict"] in ("reproduced", "partly", "not", "undecided") for claim in claims)
    before = (folder / "alignment.parquet").read_bytes()
    emergence.run(SMALL, folder)  # finished parts are read, and give the same
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "alignment.parquet"), alignment)
    assert len(before) > 1000
    page = emergence_page.write(folder).read_text()
    assert "Claims and verdicts" in page
    assert sorted(path.name for path in (folder / "figures").glob("*.svg")) == [
        "alignment-heterogeneity.svg", "alignment-uniqueness.svg", "correlations.svg", "deepest.svg",
        "heat-maps.svg",
        "performance.svg",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"holds a study of other settings \(seeds: .* before, .* now\); .*--fresh"):
        emergence.run(emergence.Grid(**{**SMALL.__dict__, "seeds": (1,)}), folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uniqueness": (9,)}, "uniqueness must be a list of 1 or more different whole numbers from 0 to 8"),
        ({"depths_2": (11,)}, "depths_2 must be .* from 1 to 10"),
        ({"depths_2": (0,)}, "depths_2 must be .* from 1 to 10"),
        ({"seeds": ()}, "seeds must be a list of 1 or more"),
        ({"trials_at_once": 3}, "trials_at_once must be from 1 to 2"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        emergence.Grid(**{**SMALL.__dict__, **change})


def test_align_ends_with_tables_verdicts_and_a_page(tmp_path: Path) -> None:
    def shrunk(sweep: Any) -> dict[str, Any]:
        cases = [{**case, "data": {**case["data"]}} for case in sweep["cases"]]
        for case in cases:
            if case["data"]["name"] == "synthetic":
                case["data"]["n"] = 400
        training = {**sweep["training"], "epochs": 1, "labels": 100}
        return {**sweep, "cases": cases, "strengths": [0, 1], "seeds": [0, 1], "training": training}

    pairs = shrunk(align.QUICK.pairs)
    pairs["cases"] = pairs["cases"][4:7]
    plan = align.Plan(shrunk(align.QUICK.strength), pairs, {"width 24": shrunk(align.QUICK.sensitivity["width 24"])})
    folder = align.run(plan, tmp_path / "study")
    best = pd.read_parquet(folder / "best.parquet")
    assert len(best) == 2 * (5 + 3 + 3)
    assert best["redundancy"].notna().sum() == 2 * 8
    claims = json.loads((folder / "claims.json").read_text())
    assert len([claim for claim in claims if claim["source"] == "shapes"]) == 10
    page = align_page.write(folder).read_text()
    assert "Best strengths and information" in page
    assert (folder / "figures" / "thesis.png").stat().st_size > 1000


def rows_of(best: float, noise: float = 0.004, seeds: int = 3) -> list[dict[str, Any]]:
    """Runs whose accuracy is highest at ``best`` in asinh of the strength, for modality 1; modality 2 only falls."""
    rng = np.random.default_rng(0)
    rows = []
    for strength in (0, 0.02, 0.1, 0.3, 0.6, 1, 2, 4):
        t, top = np.arcsinh(strength / 0.05), np.arcsinh(best / 0.05)
        for seed in range(seeds):
            rows.append({
                "strength": float(strength), "seed": seed,
                "validation_accuracy_1": 0.6 + 0.05 * (1 - (t - top) ** 2 / 9) + noise * rng.normal(),
                "validation_accuracy_2": 0.6 - 0.03 * t + noise * rng.normal(),
            })  # fmt: skip
    return rows


def test_an_optimum_is_found_with_its_interval() -> None:
    first, second = (tune.optimum(rows_of(0.5), modality, 4.0) for modality in (1, 2))
    assert first.low < 0.5 < first.high
    assert 0.2 < first.best < 1.2
    assert first.helps > 0.99
    assert first.gain_low < 0.05 * np.arcsinh(10) ** 2 / 9 < first.gain_high
    assert second.best == 0
    assert second.helps < 0.2


def test_noise_alone_helps_no_more_often_than_it_says() -> None:
    """Where strength does nothing and runs differ by noise, every change of a seed shares that of its strength 0."""
    rng = np.random.default_rng(1)
    found = []
    with threadpool_limits(1):
        for _ in range(100):
            rows = [
                {"strength": strength, "seed": seed, "validation_accuracy_1": 0.6 + 0.01 * rng.normal()}
                for strength in (0, 0.1, 0.45, 1.2, 2, 4) for seed in range(3)
            ]  # fmt: skip
            found.append(tune.optimum(rows, 1, 4.0))
    assert sum(one.helps >= 0.95 for one in found) <= 7
    assert sum(one.gain_low > 0 for one in found) <= 5


def test_tuning_takes_any_number_of_modalities_and_small_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = hidden_numbers("classification", modalities=3)
    monkeypatch.setattr(cases.data_sets, "load", lambda *_, **__: three)
    small = {"epochs": 2, "labels": None, "runs_at_once": 2}
    sweep = configuration(cases=[{"label": "mine", "data": {"name": "hidden"}}], training=small)
    most = []
    monkeypatch.setattr(
        tune, "train_chunk", lambda job, *rest: (most.append(len(job.chunk.runs)), train(job, *rest))[1]
    )
    folder = tune.run(sweep, tmp_path / "tuned", tune.Budget(highest=2.0, first=3, rounds=1, seeds=2))
    assert max(most) == 2
    found = json.loads((folder / "optima.json").read_text())["mine"]
    assert found["modalities"] == ["view 1", "view 2", "view 3"]
    assert len(found["optima"]) == 3
    print_optima(folder)
    assert "view 3" in tune_page.write(folder).read_text()
    grid = run_sweep(sweep, tmp_path / "grid")
    assert [row["name"] for row in tune.against_grid(folder, grid)] == found["modalities"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {"k": 90}}, "metrics.k must be less than the number of test pairs compared"),
        ({"training": {"labels": 421}}, "case 'R = 8': training.labels asks for 421 labelled pairs"),
        ({"cases": [{**TINY["cases"][0], "modalities": ["one"]}]}, "modalities must be 2 different names, .* got one"),
        ({"cases": [{"label": "a", "data": {"name": "emojis"}}]}, r"cases\[0\].data \(a\): load: no data set 'emojis'"),
    ],
)
def test_tuning_refuses_what_a_sweep_refuses(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        tune.run(configuration(**change), tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_tuning_trains_fewer_runs_and_says_where_the_best_is(tmp_path: Path) -> None:
    sweep = configuration(training={"epochs": 2})
    budget = tune.Budget(highest=2.0, first=3, rounds=1, seeds=2)
    folder = tune.run(sweep, tmp_path / "tuned", budget)
    found = json.loads((folder / "optima.json").read_text())["R = 8"]
    assert 6 <= found["runs"] <= budget.runs
    assert all(0 <= one["low"] <= one["high"] <= 2 for one in found["optima"])
    evaluations = pd.read_parquet(folder / "evaluations.parquet")
    assert set(evaluations["seed"]) == {1000, 1001}
    assert (evaluations.groupby("strength").size() == 2).all()
    again = tune.run(sweep, tmp_path / "again", budget)
    pd.testing.assert_frame_equal(pd.read_parquet(again / "evaluations.parquet"), evaluations)
    assert "Best strengths" in tune_page.write(folder).read_text()


@pytest.mark.parametrize("change", [{"highest": 0}, {"first": 2}, {"seeds": 1}, {"rounds": -1}])
def test_a_budget_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tune: "):
        tune.Budget(**change)


def test_regret_against_a_grid(tmp_path: Path) -> None:
    sweep = configuration(training={"epochs": 2})
    grid = run_sweep(sweep, tmp_path / "grid")
    folder = tune.run(sweep, tmp_path / "tuned", tune.Budget(highest=2.0, first=3, rounds=0, seeds=2))
    rows = tune.against_grid(folder, grid)
    assert [row["modality"] for row in rows] == [1, 2]
    runs = pd.read_parquet(grid / "runs.parquet")
    for row in rows:
        assert row["cost"] == 6 / 6
        means = runs.groupby("strength")[f"accuracy_{row['modality']}"].mean()
        assert row["regret"] == pytest.approx(
            means[row["grid"]] - np.interp(np.arcsinh(row["tuned"] / 0.05), np.arcsinh(means.index / 0.05), means)
        )
    with pytest.raises(ValueError, match="holds no finished search"):
        tune.against_grid(grid, grid)
    for strengths in ([0.3, 2], [0, 1]):
        small = run_sweep(configuration(training={"epochs": 2}, strengths=strengths), tmp_path / str(strengths))
        with pytest.raises(ValueError, match=r"must hold strength 0 and go as far as the search, to 2, got strengths"):
            tune.against_grid(folder, small)


def test_advice_is_that_of_the_nearest_pairs() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    x, y = (3 * np.eye(4)[labels] + rng.normal(size=(400, 4)) for _ in range(2))
    found = advise.advise(x, y, labels)
    assert found.information.redundancy > 4 * found.information.synergy
    assert len(found.sentences()) == 4  # the table of the information prints its notes
    assert all(one.low <= one.high and one.gain_low <= one.gain <= one.gain_high for one in found.expectations)
    alike = {name for one in found.expectations for name in one.like}
    assert alike & {"R = 8", "two bits shared", "windows of a digit"}
    assert "image x any text" not in alike


def test_the_hit_rate_leaves_the_pair_out() -> None:
    """Of a suite in which redundant pairs gain and others do not, the advice is right; of shuffled gains it is not."""
    rows = [
        {"case": str(i), "modality": m, "best": 1.0 if i % 2 else 0.0, "gain": 0.05 if i % 2 else 0.0, "end": 0.0,
         "redundancy": 1.0 * (i % 2), "unique_1": 1.0 - i % 2, "unique_2": 0.0, "synergy": 0.0, "mutual_12": 1.0}
        for i in range(14) for m in (1, 2)
    ]  # fmt: skip
    assert advise.hit_rate(rows) == {"range": 1.0, "helps": 1.0, "never": 0.5, "width": 0.0}
    alone = [row for row in rows if int(row["case"]) % 2 == 0] + [row for row in rows if row["case"] == "1"]
    assert advise.hit_rate(alone)["helps"] < 1  # nobody else gains
    packaged = advise.hit_rate()
    assert all(0 <= value <= 1 for value in packaged.values())
    assert len(advise.suite()) >= 20
