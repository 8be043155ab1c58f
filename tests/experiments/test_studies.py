"""Studies: trained side by side as alone, resumed to the same bits, and their verdicts by the rules."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from threadpoolctl import threadpool_limits
from torch import nn

from experiments.small import TINY, configuration, hidden_numbers, settings
from modalign.cli.tables import print_optima
from modalign.data import TRAIN, synthetic
from modalign.encoders import MLPConfig, build_encoder, seeded_module
from modalign.experiments import advice as advise
from modalign.experiments import tuning as tune
from modalign.experiments.studies import emergence
from modalign.experiments.studies import strength as align
from modalign.experiments.studies.layer_pairs import MEASURES
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.studies.trials import Search, Tuner
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
        ({"uniqueness": (9,)}, "uniqueness goes from 0 to 8"),
        ({"depths_2": (11,)}, "depth from 1 to 10"),
        ({"depths_2": (0,)}, "depths_2 must hold different whole numbers"),
        ({"seeds": ()}, "seeds must hold"),
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


CHILD = """
import sys, time
from pathlib import Path
from modalign.experiments.studies.layer_pairs import MEASURES
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.sweep import run as run_sweep

def slow(i):
    def make(advance):
        for _ in range(5):
            time.sleep(0.02)
            advance(1)
        return {"square": i * i}
    return make

study = Study(Path(sys.argv[1]), {"study": "squares"})
with study.begun():
    print(sum(found["square"] for found in study.run([Part(f"part{i}", 5, slow(i)) for i in range(20)], "squares")))
"""


def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(list((tmp_path / "parts").glob("part*.pt") if (tmp_path / "parts").is_dir() else [])) < 3:
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("part*.pt")}
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.strip() == str(sum(i * i for i in range(20)))
    assert all((tmp_path / "parts" / name).stat().st_mtime_ns == when for name, when in kept.items())


def test_an_error_in_a_part_stops_the_study_and_what_is_finished_stays(tmp_path: Path) -> None:
    def fails(advance: Any) -> dict[str, Any]:
        raise ValueError("no such thing")

    study = Study(tmp_path, {})
    with study.begun(), pytest.raises(ValueError, match="no such thing"):
        study.run([Part("fine", 1, lambda advance: {"a": 1}), Part("not", 1, fails)], "two", workers=1)
    assert (tmp_path / "parts" / "fine.pt").is_file()


def test_fresh_starts_a_finished_study_over(tmp_path: Path) -> None:
    """Nothing of the old study lies beside the new settings, its sweeps included; the user's own files stay."""
    study = Study(tmp_path, {"size": 1})
    with study.begun():
        for name in ("claims.json", "optima.json"):
            study.write_json(name, [])
        study.write_table("best.parquet", [{"best": 1}])
        study.place.checkpoint.write_bytes("figures/thesis.svg", b"")
        for name in ("figures/mine.svg", "notes.txt"):
            (tmp_path / name).write_text("")
        run_sweep(configuration(strengths=[0]), tmp_path / "inner")
    with Study(tmp_path, {"size": 2}, sweeps=["inner"], fresh=True).begun():
        pass
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [
        ".modalign",
        "figures",
        "figures/mine.svg",
        "inner",
        "inner/.modalign",
        "notes.txt",
        "settings.json",
    ]
    assert json.loads((tmp_path / "settings.json").read_text())["settings"] == {"size": 2}


def test_fresh_takes_nothing_from_a_folder_that_is_no_study(tmp_path: Path) -> None:
    for name in ("claims.json", "embeddings/mine.npy", "strength/config.yaml", "figures/mine.svg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(ValueError, match="something else"),
        Study(tmp_path, {}, sweeps=["strength"], fresh=True).begun(),
    ):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_kill_while_settings_are_written_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / ".settings.json.abcd1234.json").write_text("{")
    with Study(tmp_path, {}).begun():
        assert sorted(path.name for path in tmp_path.iterdir()) == [".modalign", "settings.json"]


def test_parts_of_other_settings_are_not_taken_up(tmp_path: Path) -> None:
    parts = [Part("one", 1, lambda advance: {"a": 1})]
    study = Study(tmp_path, {"size": 1})
    with study.begun():
        study.run(parts, "old")
    record = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(record | {"settings": {"size": 2}}))
    study = Study(tmp_path, {"size": 2})
    with pytest.raises(ValueError, match=r"holds what is left of a study of other settings; .*--fresh"), study.begun():
        pass
    (tmp_path / ".modalign").unlink()  # as modalign 0.1.0 left it
    with study.begun(), pytest.raises(ValueError, match=r"one.pt is of other settings or data; --fresh starts over"):
        study.run(parts, "new")


def test_an_align_study_killed_after_fresh_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was finished with other settings is started over and stopped in its second sweep."""

    def plan(rate: float) -> align.Plan:
        sweep = settings(strengths=[0], seeds=[3], training={"epochs": 1, "learning_rate": rate})
        return align.Plan(sweep, sweep, {"width 24": sweep})

    left = 3

    def some(*arguments: Any, **options: Any) -> Path:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return run_sweep(*arguments, **options)

    monkeypatch.setattr(align, "run_sweep", some)
    monkeypatch.setattr(align, "_best", lambda *_: [{"best": 1}])
    monkeypatch.setattr(align, "claims", lambda _: [])
    align.run(plan(0.002), tmp_path)
    left = 1
    with pytest.raises(KeyboardInterrupt):
        align.run(plan(0.01), tmp_path, fresh=True)
    assert not (tmp_path / "claims.json").exists()
    left = 3
    align.run(plan(0.01), tmp_path)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with (
        pytest.raises(ValueError, match=r"holds something else \(thesis\.tex\), .*give an empty or a new folder"),
        Study(tmp_path, {}).begun(),
    ):
        pass
    (tmp_path / "thesis.tex").unlink()
    with Study(tmp_path, {}).begun():
        pass
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is damaged \(.*\); .*--fresh"), Study(tmp_path, {}).begun():
        pass


def test_nothing_is_removed_where_the_storage_or_ray_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Study(tmp_path / "study", {"study": "emergence", **dataclasses.asdict(SMALL)}).begun():
        (tmp_path / "study" / "notes.txt").touch()
    before = (tmp_path / "study" / "settings.json").stat().st_mtime_ns
    with pytest.raises(Exception, match="URL"):
        emergence.run(SMALL, tmp_path / "study", storage="nonsense", fresh=True)
    assert (tmp_path / "study" / "settings.json").stat().st_mtime_ns == before
    run_sweep(configuration(strengths=[0]), tmp_path / "sweep")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match="pip install ray"):
        run_sweep(configuration(strengths=[1]), tmp_path / "sweep", fresh=True, ray="local")
    assert (tmp_path / "sweep" / "runs.parquet").is_file()


def test_nothing_of_a_study_is_removed_where_one_of_its_sweeps_cannot_be(tmp_path: Path) -> None:
    study = Study(tmp_path, {"size": 1}, sweeps=["inner"])
    with study.begun():
        study.write_json("claims.json", [])
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "thesis.tex").touch()
    with (
        pytest.raises(ValueError, match=r"inner holds something else \(thesis\.tex\)"),
        Study(tmp_path, {"size": 2}, sweeps=["inner"], fresh=True).begun(),
    ):
        pass
    assert (tmp_path / "claims.json").exists()


def test_each_resume_of_a_study_is_on_record(tmp_path: Path) -> None:
    for _ in range(3):
        with Study(tmp_path, {"size": 1}).begun():
            pass
    facts = json.loads((tmp_path / "settings.json").read_text())
    assert set(facts) == {"settings", "provenance", "resumed"}
    assert [set(record) for record in facts["resumed"]] == 2 * [set(facts["provenance"])]


def test_two_studies_on_one_storage_leave_each_others_trials_alone(tmp_path: Path) -> None:
    """Their encoders have the same title."""
    url = f"sqlite:///{tmp_path}/trials.db"
    search = Search(1, 1, (0.01,), (0.0,))
    mine, other = (Study(tmp_path / name, {"data": name}) for name in ("mosi", "mosei"))
    with mine.begun(), other.begun():
        studies = [Tuner(search, url, one.key).study("text-depth1-seed0", 0) for one in (mine, other)]
        for study in studies:
            study.tell(study.ask(), 0.5)
    assert [len(study.trials) for study in studies] == [1, 1]
    tuner = Tuner(search, url, mine.key)
    tuner.study("text-depth1-seed0", 0)  # the same study anew
    with pytest.raises(ValueError, match="trials of this study have vanished from Optuna's storage"), tuner._writing():
        studies[0].ask()


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
    assert len(found.sentences()) == 5  # one says what the codes may lack
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
