"""The emergence study by the paper's protocol: its data, encoders, settings, measures and what its page says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from modalign.data import synthetic
from modalign.encoders import LeakyMLPConfig
from modalign.experiments.studies import emergence
from modalign.experiments.studies.emergence_claims import best_of_layers, published_statistics
from modalign.experiments.studies.emergence_grid import PUBLISHED, Cell
from modalign.experiments.studies.layer_pairs import MEASURES, compared_layers
from modalign.experiments.studies.measured import spearman
from modalign.metrics import clipped_cka, svcca_code
from modalign.neighbors import knn
from modalign.report.pages import emergence as page

PAPER = dataclasses.replace(
    emergence.GRIDS["paper"][1], uniqueness=(0, 4, 8), heterogeneity=(1, 3, 5), seeds=(2, 22), depths_2=(1, 2, 3),
    n=600, temperatures=(0.05, 0.2), epochs_1=1, epochs_2=1, batch_size=128, compared=80, k=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emergence.run(PAPER, tmp_path_factory.mktemp("emergence") / "paper")


def test_the_whole_grid_is_that_of_the_paper() -> None:
    full = emergence.GRIDS["paper"][0]
    assert (full.compared, full.k, full.n, full.seeds) == (512, 100, 65536, (2, 22, 42))
    assert (full.tuning, full.trials, full.trials_at_once) == ("once", 8, 1)
    assert (full.epochs_1, full.epochs_2, full.heterogeneity) == (50, 300, tuple(range(1, 11)))


def test_all_seeds_train_on_the_published_draw() -> None:
    cell = Cell(0.05, 4)
    published = synthetic(redundancy=4, n=600, heterogeneity=3, draw="published", information=False)
    for seed in (2, 22):
        assert torch.equal(PAPER.data(cell, 3, seed).y, published.y)
    drawn = [dataclasses.replace(PAPER, protocol="default").data(cell, 3, seed).y for seed in (2, 22)]
    assert not torch.equal(*drawn)


def test_encoders_have_as_many_nonlinear_layers_as_their_depth(folder: Path) -> None:
    assert PAPER.encoder(3) == LeakyMLPConfig(kind="leaky_mlp", depth=3, dim=12)
    layers = pd.read_parquet(folder / "alignment.parquet").groupby("depth_2")["layer_2"].max()
    assert layers.to_dict() == {1: 1, 2: 2, 3: 3}
    wide = dataclasses.replace(PAPER, growth="width")
    assert wide.encoder(3) == LeakyMLPConfig(kind="leaky_mlp", depth=1, dim=108)


def test_quick_encoders_take_the_published_settings(folder: Path) -> None:
    models = pd.read_parquet(folder / "models.parquet")
    for row in models.itertuples():
        assert (row.learning_rate, row.weight_decay) == PUBLISHED[8 - row.uniqueness][row.modality - 1]
    # the published data are split anew for each heterogeneity, so that modality 1 is trained for each
    assert sorted(models[models["modality"] == 1]["heterogeneity"].unique()) == [1, 3, 5]


def test_the_measures_are_those_of_the_published_code() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(60, 12, generator=generator).double()) for _ in range(2))
    layers = [[(rows, torch.as_tensor(knn(rows, 5).indices))] for rows in (x, y)]
    row = compared_layers(*layers, published=True)[0]
    assert (row["unbiased_cka"], row["svcca"]) == (clipped_cka(x, y), svcca_code(x, y))


def test_tuning_once_gives_a_cell_one_setting(tmp_path: Path) -> None:
    grid = dataclasses.replace(
        PAPER,
        tuning="once",
        trials=2,
        trials_at_once=1,
        uniqueness=(0, 4),
        heterogeneity=(1,),
        depths_2=(1, 2),
        temperatures=(0.05,),
    )
    models = pd.read_parquet(emergence.run(grid, tmp_path / "once") / "models.parquet")
    settings = models.groupby(["modality", "uniqueness"])[["learning_rate", "weight_decay"]].nunique()
    assert settings.to_numpy().tolist() == [[1, 1]] * 4


def test_the_page_shows_protocol_chance_and_every_level_of_information(folder: Path) -> None:
    table = pd.read_parquet(folder / "alignment.parquet")
    assert sorted(table["temperature"].unique()) == [0.05, 0.2]
    assert best_of_layers(folder)["temperature"].unique().tolist() == [0.05]
    text = page.write(folder).read_text(encoding="utf-8")
    assert "protocol: paper" in text
    assert "Mutual k-NN of unrelated encoders is 0.253: 20 neighbours among 80 pairs." in text
    assert "all seeds train on one draw of the data" in text
    assert "Statistics as the published code takes them" in text
    assert "Alignment against performance at depth 3" in text
    assert (folder / "figures" / "alignment-uniqueness-by-level.svg").is_file()


def test_published_statistics_take_the_highest_of_all_seeds_and_pool_them() -> None:
    rows = [
        {"uniqueness": u, "heterogeneity": d, "seed": seed, "depth_2": depth, "accuracy": 0.1 * depth + 0.001 * seed,
         **dict.fromkeys(MEASURES, 1 - 0.1 * u - 0.01 * d + 0.001 * depth - 0.1 * (seed == 22))}
        for u in range(9) for d in (1, 3, 5) for seed in (2, 22) for depth in (1, 2, 3)
    ]  # fmt: skip
    found = {name: (ours, paper) for _, name, ours, paper in published_statistics(pd.DataFrame(rows))}
    assert found["rho of unbiased CKA and U, heterogeneity 3"] == (pytest.approx(-1), -0.762)
    assert found["rho of svcca and heterogeneity, U = 4"] == (pytest.approx(-1), -0.624)
    # within a seed alignment rises with accuracy; the lower second seed takes the pooled correlation down
    pooled = spearman(np.array([0.102, 0.122, 0.202, 0.222, 0.302, 0.322]), np.array([0.1, 0, 0.2, 0.01, 0.3, 0.02]))
    assert found["median rho of unbiased CKA and accuracy, U = 0"] == (pytest.approx(pooled), 0.68)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuning": "twice"}, "tuning must be one of each, once, published, got twice"),
        ({"growth": "height"}, "growth must be one of depth, width, got height"),
        ({"temperatures": (0.05, 0.05)}, "temperatures must be a list of 1 or more different numbers above 0"),
    ],
)
def test_other_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PAPER, **changes)  # type: ignore[arg-type]
