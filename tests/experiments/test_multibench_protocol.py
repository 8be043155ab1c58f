"""The study of MultiBench under the protocol of the paper's code: encoders, training, compared rows and statistic."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from experiments.test_multibench_study import TINY, corpus
from modalign.data import TEST, TRAIN
from modalign.encoders import MultiBenchConfig
from modalign.experiments.studies import multibench
from modalign.experiments.studies import multibench_published as published
from modalign.experiments.studies.unimodal import Fit, Trained, UnimodalTrainer, every_layer
from modalign.experiments.sweep.training import inputs_of
from modalign.metrics import unbiased_cka
from modalign.report.pages import multibench as multibench_page

PAPER = dataclasses.replace(TINY, protocol="paper", epochs=2, learning_rates=(), weight_decays=())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    place = tmp_path_factory.mktemp("paper")
    data = multibench.data_of(corpus(place / "mosi_data.pkl", "mosi").parent, "mosi", PAPER)
    return data, multibench.run(data, PAPER, place / "study")


def test_encoders_are_trained_once_with_the_published_settings(finished: tuple[Any, Path]) -> None:
    data, folder = finished
    models = pd.read_parquet(folder / "models.parquet")
    settings = {(row.modality, row.learning_rate, row.weight_decay) for row in models.itertuples()}
    assert settings == {("vision", 1e-3, 0.01), ("audio", 1e-3, 0.01), ("text", 1e-4, 0.01)}
    assert not (folder / "trials.db").exists()
    config = multibench._config(data, 1, 2, "paper")
    assert config == MultiBenchConfig(kind="multibench", depth=2, pooling="mean", padding=True, dim=5)
    trainer = UnimodalTrainer([data], 1, config, batch_size=16, last_batch=True, kept_by="loss")
    fits = [Fit(0, seed + 1 + 2, 1e-3, 0.01) for seed in (2, 22)]
    trained = trainer.train(fits, 2)
    rows = models.query("modality == 'audio' and depth == 2")
    assert rows["seed"].tolist() == [2, 22]
    assert rows["score"].tolist() == trained.test.tolist()
    assert rows["train_score"].tolist() == trainer.scores(trained, fits, TRAIN).tolist()


def test_one_best_encoder_of_all_seeds_is_compared_on_test_and_training_pairs(finished: tuple[Any, Path]) -> None:
    _, folder = finished
    models, alignment = (pd.read_parquet(folder / f"{name}.parquet") for name in ("models", "alignment"))
    for other, mine in alignment.groupby("other"):
        assert len(mine[["seed_other", "depth_other"]].drop_duplicates()) == 1
        highest = models[models["modality"] == other].sort_values(["seed", "depth"]).set_index(["seed", "depth"])
        assert tuple(mine[["seed_other", "depth_other"]].iloc[0]) == highest["validation_score"].idxmax()
    for _, mine in alignment.groupby(["part", "varying", "other", "seed", "depth"]):
        assert len(mine) == mine["depth"].iloc[0] * mine["depth_other"].iloc[0]  # nothing follows the last block
    assert set(alignment["part"]) == {"test", "train"}
    scores = alignment.query("part == 'train' and varying == 'text'").groupby(["seed", "depth"])["score"].first()
    trained = models[models["modality"] == "text"].set_index(["seed", "depth"])["train_score"]
    assert scores.to_dict() == trained.to_dict()


def test_rows_are_clamped_at_their_quantile_and_r_is_over_all_points(finished: tuple[Any, Path]) -> None:
    data, folder = finished
    alignment = pd.read_parquet(folder / "alignment.parquet").query("part == 'test'")
    row = alignment.query("varying == 'vision' and other == 'text' and seed == 22 and depth == 2").iloc[-1]
    rows = published.compared_rows(data, TEST, PAPER.compared)
    assert rows.tolist() == list(range(30))  # the first ones
    sides = []
    best = (int(row["depth_other"]), int(row["seed_other"]))
    for modality, name, depth, seed in ((0, "vision", 2, 22), (2, "text", *best)):
        part = torch.load(folder / "parts" / f"{name}-depth{depth}.pt", weights_only=True)["content"]
        config = multibench._config(data, modality, depth, "paper")
        trained = Trained(part["parameters"], *[torch.zeros(0)] * 3)
        x = inputs_of(data.part(TEST))[modality][rows]
        last = every_layer(config, trained, (2, 22).index(seed), x)[-1].double()
        threshold = last.abs().flatten().sort().values[int(0.95 * last.numel())]
        sides.append(F.normalize(last.clamp(-threshold, threshold)))
    assert row["unbiased_cka"] == pytest.approx(unbiased_cka(*sides), abs=1e-6)
    points = multibench_page.best_of_layers(folder).query("part == 'test' and varying == 'vision' and other == 'text'")
    table = pd.read_parquet(folder / "correlations.parquet")
    found = table.query("part == 'test' and varying == 'vision' and other == 'text' and measure == 'unbiased_cka'")
    expected = np.corrcoef(points["unbiased_cka"], points["score"])[0, 1] if points["score"].nunique() > 1 else np.nan
    assert found["r"].iloc[0] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert len(points) == 6


def test_the_papers_numbers_stand_beside_features_of_its_widths_alone(finished: tuple[Any, Path]) -> None:
    _, folder = finished
    claims = json.loads((folder / "claims.json").read_text())
    assert {claim["paper"] for claim in claims} == {None}  # 6, 5 and 8 features
    settings = json.loads((folder / "settings.json").read_text())["settings"]
    assert not published.has_published_widths(settings)
    settings["data"]["modalities"] = {"vision": [50, 20], "audio": [50, 5], "text": [50, 300]}
    assert published.has_published_widths(settings)
    assert not published.has_published_widths({**settings, "protocol": "default"})
    page = multibench_page.write(folder).read_text()
    assert "on the training part" in page
    assert "over all depths and seeds" in page
    assert "1 of 8 trials" not in page


@pytest.mark.parametrize("protocol", ["default", "paper"])
def test_a_folder_may_hold_either_file_of_mosi(protocol: str, tmp_path: Path) -> None:
    grid = {"default": TINY, "paper": PAPER}[protocol]
    with pytest.raises(FileNotFoundError, match=r"holds no file mosi_raw.pkl or mosi_data.pkl"):
        multibench.data_of(tmp_path, "mosi", grid)
    corpus(tmp_path / "mosi_data.pkl", "mosi")
    assert multibench.data_of(tmp_path, "mosi", grid).settings["path"] == str(tmp_path / "mosi_data.pkl")
    other = pickle.loads((tmp_path / "mosi_data.pkl").read_bytes())
    other["train"]["vision"] = other["train"]["vision"] + 1
    (tmp_path / "mosi_raw.pkl").write_bytes(pickle.dumps(other))
    first = {"default": "mosi_raw.pkl", "paper": "mosi_data.pkl"}[protocol]
    assert multibench.data_of(tmp_path, "mosi", grid).settings["path"] == str(tmp_path / first)


def test_the_padding_of_the_papers_code_is_before_the_first_word(finished: tuple[Any, Path]) -> None:
    data, _ = finished
    spoken = (data.more[0] != 0).any(2)
    assert not data.x[~spoken].any()
    assert data.settings["standardise"] == "multibench"


def test_what_is_not_offered_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"MM-IMDb, CLIP fine-tuned with BCE .* is not offered: .*modalign sweep"):
        multibench.data_of(tmp_path, "mm_imdb", TINY)
    with pytest.raises(ValueError, match="the protocol paper tries no settings"):
        dataclasses.replace(PAPER, trials=2)
    data = multibench.data_of(corpus(tmp_path / "mosi_raw.pkl", "mosi"), "mosi", PAPER)
    with pytest.raises(ValueError, match="storage keeps trials, and the protocol paper makes none"):
        multibench.run(data, PAPER, tmp_path / "out", storage="sqlite:///x.db")
