"""The MultiBench table on files of its form, small: tables, verdicts, page, interruption and refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from modalign.cli import app
from modalign.common.progress import Reporter
from modalign.data import TEST
from modalign.experiments.studies import multibench, multibench_claims
from modalign.experiments.studies.layer_pairs import compared_layers, layers_of
from modalign.experiments.studies.measured import curve_correlation
from modalign.experiments.studies.unimodal import Trained
from modalign.report.pages import multibench as multibench_page

TINY = multibench.Grid(
    depths=(1, 2, 3), seeds=(2, 22), items=40, steps=8, epochs=1, batch_size=16, trials=1, trials_at_once=1,
    compared=30, k=4,
)  # fmt: skip
SIZES = {"train": 60, "valid": 20, "test": 40}
WIDTHS = {"vision": 6, "audio": 5, "text": 8}


def corpus(path: Path, dataset: str) -> Path:
    """A pickle in MultiBench's form: left-padded sequences of 50 steps, -inf in the audio, labels of its shapes."""
    rng = np.random.default_rng(0)
    table: dict[str, Any] = {}
    mixing = {name: rng.normal(size=(3, width)) for name, width in WIDTHS.items()}
    for part, n in SIZES.items():
        hidden = rng.normal(size=(n, 1, 3))
        padded = np.arange(50) < (50 - rng.integers(1, 51, n))[:, None]
        arrays = {}
        for name, width in WIDTHS.items():
            values = hidden @ mixing[name] + 0.5 * rng.normal(size=(n, 50, width))
            values[padded] = 0
            arrays[name] = values.astype(np.float32)
        arrays["audio"][0, -1, 0] = -np.inf
        sign = np.where(hidden[:, 0, 0] > 0, 1, -1)
        labels = {"mosi": hidden[:, :, :1], "mosei": hidden[:, :, :1], "sarcasm": sign[:, None]}
        ids = np.array([f"video[{i}]" for i in range(n)], dtype=object)
        table[part] = {**arrays, "labels": labels.get(dataset, (sign[:, None] + 1) // 2), "id": ids}
    path.write_bytes(pickle.dumps(table))
    return path


def avmnist(folder: Path, audio: tuple[int, int] = (20, 36)) -> Path:
    rng = np.random.default_rng(0)
    for modality in ("image", "audio"):
        (folder / modality).mkdir(parents=True)
    for part, n in (("train", 120), ("test", 40)):
        labels = np.arange(n) % 3
        images = rng.integers(0, 80, (n, 784)) + 60 * labels[:, None]
        np.save(folder / "image" / f"{part}_data.npy", images.astype(np.uint8))
        np.save(folder / "audio" / f"{part}_data.npy", rng.normal(size=(n, *audio)) + labels[:, None, None])
        np.save(folder / f"{part}_labels.npy", labels.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    place = tmp_path_factory.mktemp("mosi")
    data = multibench.data_of(corpus(place / "mosi_raw.pkl", "mosi"), "mosi", TINY)
    return data, multibench.run(data, TINY, place / "study")


def test_the_data_is_cut_as_the_grid_says(finished: tuple[Any, Path]) -> None:
    data, _ = finished
    assert torch.bincount(data.split.long()).tolist() == [40, 20, 40]
    assert [tuple(x.shape[1:]) for x in (data.x, data.y, *data.more)] == [(8, 6), (8, 5), (8, 8)]
    assert data.task == "regression"
    whole = multibench.data_of(data.settings["path"], "mosi", dataclasses.replace(TINY, items=None, steps=None))
    assert torch.bincount(whole.split.long()).tolist() == list(SIZES.values())
    kept = [row for row in range(60) if any(torch.equal(whole.x[row, -8:], x) for x in data.x[:40])]
    assert len(kept) == 40


def test_every_encoder_and_pair_of_layers_is_in_the_tables(finished: tuple[Any, Path]) -> None:
    _, folder = finished
    models, alignment = (pd.read_parquet(folder / f"{name}.parquet") for name in ("models", "alignment"))
    assert len(models) == 3 * 3 * 2
    assert models["learning_rate"].isin(TINY.learning_rates).all()
    assert models["score"].between(0, 1).all()
    # depth d has d blocks and an output; the best encoder of the other side has as many layers as its depth says
    for _, mine in alignment.groupby(["varying", "other", "seed", "depth"]):
        assert len(mine) == (mine["depth"].iloc[0] + 1) * (mine["depth_other"].iloc[0] + 1)
    best = models.loc[models.groupby(["modality", "seed"])["validation_score"].idxmax()]
    said = alignment.groupby(["other", "seed"])["depth_other"].first()
    assert {(row.modality, row.seed): row.depth for row in best.itertuples()} == said.to_dict()
    assert len(alignment.groupby(["varying", "other"])) == 6


def test_the_numbers_are_those_of_the_encoders(finished: tuple[Any, Path]) -> None:
    """One cell anew, from the trained parameters: scores of layers, their maximum, and the correlation."""
    data, folder = finished
    parts = {
        name: torch.load(folder / "parts" / f"{name}.pt", weights_only=True)["content"]
        for name in ("vision-depth2", "text-depth1", "text-depth2", "text-depth3")
    }
    alignment = pd.read_parquet(folder / "alignment.parquet")
    mine = alignment.query("varying == 'vision' and other == 'text' and seed == 22 and depth == 2")
    other = int(mine["depth_other"].iloc[0])
    held = data.part(TEST)
    rows = multibench.compared_pairs(40, 30)
    layers = [
        layers_of(
            multibench._config(data, modality, depth),
            Trained(parts[f"{name}-depth{depth}"]["parameters"], *[torch.zeros(0)] * 3), 1, x[rows], 4,
        )
        for modality, name, depth, x in ((0, "vision", 2, held.x), (2, "text", other, held.more[0]))
    ]  # fmt: skip
    expected = pd.DataFrame(compared_layers(*layers))
    pd.testing.assert_frame_equal(mine[expected.columns].reset_index(drop=True), expected)
    assert mine["score"].iloc[0] == parts["vision-depth2"]["models"][1]["score"]
    best = multibench_claims.best_of_layers(folder).query("varying == 'vision' and other == 'text'")
    grids = [best.pivot(index="seed", columns="depth", values=name).to_numpy() for name in ("svcca", "score")]
    found = pd.read_parquet(folder / "correlations.parquet")
    row = found.query("varying == 'vision' and other == 'text' and measure == 'svcca'").iloc[0]
    assert row["r"] == pytest.approx(
        np.corrcoef(grids[0].mean(0), grids[1].mean(0))[0, 1] if np.ptp(grids[1].mean(0)) else 0.0
    )
    assert row["low"] <= row["high"]


def test_the_sides_of_the_papers_numbers_stand_beside_ours_and_not_numbers_of_another_protocol(
    finished: tuple[Any, Path],
) -> None:
    _, folder = finished
    claims = json.loads((folder / "claims.json").read_text())
    assert {claim["paper"] for claim in claims} == {None}
    sides = {claim["source"]: claim["side"] for claim in claims if claim["rule"] == "sign"}
    assert sides == {"audio-vision": 1, "text-vision": -1, "audio-text": 1, "text-audio": -1}
    assert {claim["source"]: claim["rule"] for claim in claims}["vision-audio"] == "none"
    assert {claim["verdict"] for claim in claims} == {"undecided"}  # of three depths nothing can be said
    page = multibench_page.write(folder).read_text()
    for text in ("Claims and verdicts", "r of alignment and performance", "a small version of the study", "mosi"):
        assert text in page
    assert "-0.386" not in page
    assert sorted(path.name for path in (folder / "figures").glob("*.svg")) == ["depths.svg", "performance.svg"]


class Impatient(Reporter):
    """Stops the study when some of a part is done, as Ctrl-C would."""

    def __init__(self, after: float) -> None:
        super().__init__("none")
        self.after = after

    def advance(self, work: int, *, resumed: bool = False) -> None:
        super().advance(work, resumed=resumed)
        if self.name.endswith("alignment") and self.done > self.after * self.total:
            raise KeyboardInterrupt


def test_an_interrupted_study_goes_on_to_the_same_numbers(finished: tuple[Any, Path], tmp_path: Path) -> None:
    data, folder = finished
    with pytest.raises(KeyboardInterrupt):
        multibench.run(data, TINY, tmp_path, reporter=Impatient(0.5), workers=1)
    assert not (tmp_path / "alignment.parquet").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.pt")}
    assert len(kept) >= 9 + 3
    multibench.run(data, TINY, tmp_path)
    assert all((tmp_path / "parts" / name).stat().st_mtime_ns == when for name, when in kept.items())
    for name in ("models", "alignment", "correlations"):
        one, two = (pd.read_parquet(place / f"{name}.parquet") for place in (folder, tmp_path))
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_another_grid_or_other_data_in_the_folder_is_refused(finished: tuple[Any, Path]) -> None:
    data, folder = finished
    with pytest.raises(ValueError, match=r"holds a study of other settings \(epochs: . before, 2 now\); .*--fresh"):
        multibench.run(data, dataclasses.replace(TINY, epochs=2), folder)
    other = dataclasses.replace(data, x=data.x + 1)
    with pytest.raises(
        ValueError, match=r"holds a study of other settings \(data.fingerprint: .* before, .* now\); .*--fresh"
    ):
        multibench.run(other, TINY, folder)


@pytest.mark.parametrize("dataset", ["humor", "sarcasm"])
def test_classes_are_read_by_a_cls_step(dataset: str, tmp_path: Path) -> None:
    corpus(tmp_path / f"{dataset}.pkl", dataset)
    data = multibench.data_of(tmp_path, dataset, TINY)  # the folder that holds the file
    assert multibench._config(data, 2, 3).pooling == "cls"
    assert multibench._config(data, 2, 3).dim == 8


def test_spectrograms_are_averaged_and_mfcc_tokens_taken_as_they_are(tmp_path: Path) -> None:
    for audio, tokens in (((20, 36), (20, 36)), ((112, 112), (28, 28))):
        data = multibench.data_of(avmnist(tmp_path / str(audio[0]), audio), "av_mnist", TINY)
        assert (tuple(data.x.shape[1:]), tuple(data.y.shape[1:])) == ((49, 16), tokens)


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("mosi_raw.pkl", "mosii", {}, "dataset must be one of mosi, mosei, humor, sarcasm, av_mnist, got 'mosii'"),
    ("mosi_raw.pkl", "av_mnist", {}, "av_mnist needs the folder with image/, audio/ and labels, got "),
    ("", "mosei", {}, r"no file .*mosei_senti_data\.pkl"),
    ("absent.pkl", "mosi", {}, r"no file .*absent\.pkl"),
    ("mosi_raw.pkl", "humor", {}, "labels of humor must be 0 or 1"),
    (
        "mosi_raw.pkl",
        "mosi",
        {"k": 40, "compared": 60},
        "k must be less than the number of test pairs compared, got 40 for ",
    ),
]


@pytest.mark.parametrize(("name", "dataset", "change", "message"), REFUSED)
def test_data_that_is_not_there_or_too_small_is_refused(
    name: str, dataset: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    corpus(tmp_path / "mosi_raw.pkl", "mosi")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        multibench.data_of(tmp_path / name, dataset, dataclasses.replace(TINY, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (1, 2)}, "depths must be a list of 3 or more different whole numbers from 1 to 10"),
        ({"depths": (0, 1, 2)}, r"from 1 to 10, such as \[1, 2, 3\], got \[0, 1, 2\]"),
        ({"depths": (1, 2, 11)}, r"from 1 to 10, such as \[1, 2, 3\], got \[1, 2, 11\]"),
        ({"seeds": ()}, "seeds must be a list of 1 or more"),
        ({"trials_at_once": 3}, "trials_at_once must be from 1 to 1"),
        ({"k": 30}, "k must be less than compared, the pairs compared, got k=30 and compared=30"),
        ({"learning_rates": ()}, "learning_rates and weight_decays must hold one or more numbers"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_the_full_grid_is_the_papers() -> None:
    full = multibench.FULL
    assert full.depths == tuple(range(1, 11))
    assert (full.epochs, full.epochs * full.long, full.batch_size, full.k) == (50, 100, 64, 10)
    assert set(full.learning_rates) == {1e-3, 5e-4, 1e-4, 5e-5, 1e-5}
    assert set(full.weight_decays) == {0, 0.1, 0.01, 1e-3, 1e-4}
    assert full.items is full.steps is None


def test_a_correlation_of_means_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    points = np.linspace(0, 1, 10)
    x, y = (points + 0.05 * rng.normal(size=(3, 10)) for _ in range(2))
    ours = curve_correlation(x, y, over="depths")
    assert ours.value == pytest.approx(np.corrcoef(x.mean(0), y.mean(0))[0, 1])
    assert 0.5 < ours.low <= ours.value <= ours.high <= 1
    assert {source.name: source.count for source in ours.sources} == {"depths": 10, "seeds": 3}
    assert math.isnan(curve_correlation(np.ones((2, 4)), x[:2, :4]).value)


def called(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments), "--quiet"])


def test_the_command_trains_on_av_mnist_and_prints_two_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    empty: tuple[float, ...] = ()
    grid = dataclasses.replace(TINY, seeds=(2,), items=31, protocol="paper", learning_rates=empty, weight_decays=empty)
    monkeypatch.setitem(multibench.GRIDS, "paper", (multibench.FULL, grid))
    options = ("--dataset", "av_mnist", "--device", "cpu", "--protocol", "paper")
    result = called("multibench", "--data", avmnist(tmp_path / "av"), *options)
    assert result.exit_code == 0, result.output
    folder = Path("results") / "multibench-av_mnist-paper"
    assert result.stdout.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert "0.89" in result.stdout  # the paper's
    claims = json.loads((folder / "claims.json").read_text())
    assert {claim["source"]: claim["paper"] for claim in claims} == {"image-audio": 0.887, "audio-image": 0.723}
    assert len(pd.read_parquet(folder / "models.parquet")) == 2 * 3
    assert "last 8 steps" not in (folder / "report.html").read_text()  # its tokens are not cut
    assert (folder / "figures" / "performance.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("multibench",), "reproduce multibench needs --data, a file of MultiBench or the folder of AV-MNIST, and"),
        (("multibench", "--data", "mosi.pkl"), "and --dataset, mosi, mosei, humor, sarcasm or av_mnist"),
        (("multibench", "--data", "mosi.pkl", "--dataset", "mosi"), "no file mosi.pkl"),
        (("emergence", "--dataset", "mosi"), "--dataset is not an option of emergence; it is one of align, multibench"),
        (("align", "--storage", "x"), "--storage is not an option of align; it is one of emergence, multibench"),
        (("emergence", "--device", "gpu"), "--device must be cpu, cuda or cuda:0, cuda:1 ..., got gpu"),
        (("multibnch",), "STUDY must be one of emergence, align"),
    ],
)
def test_a_call_that_cannot_be_is_answered_in_a_line(arguments: tuple[str, ...], message: str) -> None:
    result = called(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr
