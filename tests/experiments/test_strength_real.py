"""The study of strengths on the paper's real data, in files of its form, and on data with synergy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from experiments.test_multibench_study import avmnist, corpus
from modalign.cli import app
from modalign.experiments.studies import strength_real
from modalign.experiments.studies.registry import StudyOptions
from modalign.experiments.studies.strength_real import dataset_of, plan_of

PAPER = {"MOSEI: accuracy of vision rises", "MOSEI: accuracy of text has an inverted U, best strength about 0.75"}


def called(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["reproduce", "align", *map(str, arguments), "--quiet"])


def test_the_papers_strengths_are_0_to_4_by_a_tenth() -> None:
    plan = plan_of("synergy", None, StudyOptions(Path(), protocol="paper"))
    assert plan.sweep["strengths"] == [i / 10 for i in range(41)]
    assert plan.sweep["cases"][0]["data"]["synergy"] == 4
    assert len(plan_of("synergy", None).sweep["strengths"]) == 7
    full = plan_of("synergy", None, StudyOptions(Path(), full=True, device="cuda"))
    assert full.sweep["cases"][0]["data"]["n"] == 65536
    assert full.sweep["training"]["device"] == "cuda"


def test_the_data_set_is_told_by_the_names_of_its_files(tmp_path: Path) -> None:
    for name, dataset in (("mosei_senti_data.pkl", "mosei"), ("sarcasm.pkl", "sarcasm")):
        place = tmp_path / dataset
        place.mkdir()
        corpus(place / name, dataset)
        assert dataset_of(place, None) == dataset_of(place / name, None) == dataset
    assert dataset_of(avmnist(tmp_path / "av"), None) == "av_mnist"
    assert dataset_of(Path("mine.pkl"), "sarcasm") == "sarcasm"
    assert plan_of(tmp_path / "sarcasm", None).sweep["cases"][0]["data"]["modalities"] == ["vision", "audio"]
    spectrograms = plan_of(avmnist(tmp_path / "wide", (112, 112)), None).sweep["cases"][0]["data"]
    assert spectrograms["audio_pool"] == 4
    with pytest.raises(ValueError, match="name of the data set cannot be told: add --dataset, one of mosei, sarcasm"):
        dataset_of(Path("mine.pkl"), None)
    with pytest.raises(ValueError, match="dataset must be one of mosei, sarcasm, av_mnist, synergy, got 'mosi'"):
        dataset_of(Path("mine.pkl"), "mosi")


@pytest.mark.parametrize("protocol", ["paper", "default"])
def test_the_command_trains_on_your_copy_and_sets_the_papers_statements_beside_it(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(strength_real.STRENGTHS, protocol, (0, 0.5, 4))
    build = strength_real.plan_of

    def tiny(path: Path, dataset: str | None, options: StudyOptions) -> strength_real.Plan:
        plan = build(path, dataset, options)
        sweep = {**plan.sweep, "seeds": 2, "training": {"epochs": 1, "batch_size": 16}, "metrics": {"k": 3}}
        return strength_real.Plan(plan.dataset, plan.protocol, sweep)

    monkeypatch.setattr(strength_real, "plan_of", tiny)
    corpus(tmp_path / "mosei_senti_data.pkl", "mosei")
    result = called("--data", "mosei_senti_data.pkl", "--protocol", protocol)
    assert result.exit_code == 0, result.output
    folder = Path("results") / ("align-mosei_senti_data" + ("-paper" if protocol == "paper" else ""))
    claims = {claim["text"].split(" (weakest")[0] for claim in json.loads((folder / "claims.json").read_text())}
    assert claims == PAPER | {f"{name} rises with strength" for name in ("cka", "svcca", "mutual_knn")}
    best = pd.read_parquet(folder / "best.parquet")
    assert best["name"].tolist() == ["vision", "text"]
    assert best[["redundancy", "unique_1", "unique_2", "synergy"]].notna().all(axis=None)
    page = (folder / "report.html").read_text()
    assert "The paper publishes no code" in page
    assert f"protocol: {protocol}" in page
    assert (folder / "figures" / "strength.svg").is_file()
    again = called("--data", "mosei_senti_data.pkl", "--protocol", protocol)  # everything is there
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "mosei"), "takes --dataset beside --data"),
        (("--device", "cpu"), "takes --device beside --data"),
        (("--protocol", "paper"), "--protocol paper is for real data: give --data"),
        (("--data", "absent/sarcasm.pkl"), "there is no file absent/sarcasm.pkl"),
    ],
)
def test_a_call_that_cannot_be_is_answered_in_a_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = called(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
