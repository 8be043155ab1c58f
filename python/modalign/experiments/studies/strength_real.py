"""The study of alignment strength on one of the paper's real data sets, your copy, or on data with synergy.

CMU-MOSEI (vision and text), MUStARD (vision and audio) and AV-MNIST (image and audio) as in Fang et al. 2026
(arXiv:2511.12121); "synergy" is a case of the generator whose label depends on both modalities together. The paper
publishes no code: its grid of strengths, 0 to 4 by 0.1, is the protocol "paper", and encoders and training are ours.

    run(plan_of("mosei_senti_data.pkl", None), folder)      a few minutes on two cores
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.common.names import suggestion
from modalign.common.progress import Reporter
from modalign.data import TRAIN, PairedDataset
from modalign.data import load as load_data
from modalign.experiments.studies.claims import records
from modalign.experiments.studies.multibench_data import AFFECT_FILES, file_of
from modalign.experiments.studies.registry import StudyOptions
from modalign.experiments.studies.strength_real_claims import claims
from modalign.experiments.studies.study import Study
from modalign.experiments.sweep.config import parse
from modalign.experiments.sweep.findings import findings
from modalign.experiments.sweep.results import read
from modalign.experiments.sweep.runner import run as run_sweep
from modalign.files.paths import expanded
from modalign.information import Information, pid

__all__ = ["DATASETS", "Plan", "dataset_of", "plan_of", "reproduce", "run"]

# the modalities of the paper's figures
PAIRS = {"mosei": ("vision", "text"), "sarcasm": ("vision", "audio"), "av_mnist": ("image", "audio")}
DATASETS = (*PAIRS, "synergy")
STRENGTHS = {"default": (0, 0.1, 0.3, 0.6, 1, 2, 4), "paper": tuple(i / 10 for i in range(41))}
COMPONENTS = 16  # of each modality, from which the information is estimated


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is trained. dataset: one of ``DATASETS``; sweep: a mapping that ``config.parse`` takes."""

    dataset: str
    protocol: str
    sweep: Mapping[str, Any]


def dataset_of(path: Path, dataset: str | None) -> str:
    """Return the name of the data set at a path: the one that is given, or the one that its usual file names tell.

    Raises ValueError for a name that the study does not know, or where none can be told.
    """
    if dataset is not None and dataset not in DATASETS:
        raise ValueError(
            f"align: dataset must be one of {', '.join(DATASETS)}, got {dataset!r}{suggestion(dataset, DATASETS)}"
        )
    if dataset is not None:
        return dataset
    place = expanded(path)
    if str(path) == "synergy" and not place.exists():
        return "synergy"
    known = {name: AFFECT_FILES[name][0] for name in PAIRS if name in AFFECT_FILES}
    there = [name for name, file in known.items() if place.name == file or (place / file).is_file()]
    there += ["av_mnist"] if (place / "image").is_dir() and (place / "audio").is_dir() else []
    if len(there) != 1:
        names = ", ".join(known.values())
        raise ValueError(
            f"align: --data must be synergy, {names}, a folder that holds one of them, or the folder of AV-MNIST; from "
            f"{path} the name of the data set cannot be told: add --dataset, one of {', '.join(DATASETS)}"
        )
    return there[0]


def plan_of(path: str | Path, dataset: str | None, options: StudyOptions | None = None) -> Plan:
    """Return the plan for the data at a path: all of it or, unless ``options.full``, 512 pairs of each part."""
    options = options or StudyOptions(Path())
    name = dataset_of(Path(path), dataset)
    encoders: dict[str, Any] = {"kind": "sequence", "width": 32, "depth": 2, "dim": 32}
    training: dict[str, Any] = {"epochs": 50 if options.full else 12, "batch_size": 64, "learning_rate": 0.001}
    if name == "synergy":  # as the study of the synthetic data
        encoders = {"kind": "mlp", "width": 12, "depth": 2, "dim": 12}
        training = {"epochs": 25, "batch_size": 256, "learning_rate": 0.003, "labels": 1000}
    sweep = {
        "name": name,
        "cases": [{"label": name, "data": _data_settings(path, name, full=options.full)}],
        "encoders": encoders,
        "strengths": list(STRENGTHS[options.protocol]),
        "seeds": 5 if options.full else 3,
        "training": {**training, "temperature": 0.2, "device": options.device or "cpu"},
        "metrics": {"pairs": 2048},
    }
    return Plan(name, options.protocol, sweep)


def _data_settings(path: str | Path, name: str, *, full: bool) -> dict[str, Any]:
    """Return the data of the sweep as a configuration names it."""
    if name == "synergy":
        return {"name": "synthetic", "redundancy": 2, "synergy": 4, "n": 65536 if full else 20000}
    cuts = {} if full else {"items": 512}
    place = file_of(path, name)
    if name == "av_mnist":
        return {"name": name, "folder": str(place), "features": "tokens", **cuts, **_pooled(place)}
    cuts |= {} if full else {"steps": 20}
    return {"name": "affect", "path": str(place), "dataset": name, "modalities": list(PAIRS[name]), **cuts}


def reproduce(options: StudyOptions) -> None:
    """Run the study as ``modalign reproduce align --data`` does."""
    assert options.data is not None
    plan = plan_of(options.data, options.dataset, options)
    run(plan, options.folder, fresh=options.fresh, reporter=options.reporter, workers=options.workers)


def run(
    plan: Plan, folder: Path, *, fresh: bool = False, reporter: Reporter | None = None, workers: int | None = None
) -> Path:
    """Run the sweep of ``plan`` in the folder ``sweep`` and write best.parquet and claims.json into ``folder``.

    A folder that holds a part of the same study is continued. Raises ValueError for a folder with something else in it.
    """
    study = Study(folder, {"study": "align", **dataclasses.asdict(plan)}, sweeps=["sweep"], fresh=fresh)
    with study.begun():
        sweep = parse(plan.sweep, plan.dataset)
        run_sweep(sweep, study.path / "sweep", reporter=reporter or Reporter("none"), workers=workers)
        study.write_table("best.parquet", _best(study.path / "sweep"))
        study.write_json("claims.json", records(claims(study.path, plan.dataset)))
    return study.path


def _best(folder: Path) -> list[dict[str, Any]]:
    """Return the best strength, its gain and the information of the data, a row for each modality."""
    results = read(folder)
    settings = dict(results.config["cases"][0]["data"])
    parts = dataclasses.asdict(_information(load_data(settings.pop("name"), **settings)))
    rows = []
    for finding in findings(results):
        low, high = finding.best_range or (np.nan, np.nan)
        rows.append(
            {
                "setting": "default",
                "case": finding.case.label,
                "modality": finding.modality,
                "name": finding.name,
                "best": finding.best,
                "best_low": low,
                "best_high": high,
                "gain": finding.gain.mean,
                "gain_low": finding.gain.low,
                "gain_high": finding.gain.high,
                "end": finding.end.mean,
                "trend": finding.trend,
                **parts,
            }
        )
    return rows


def _information(data: PairedDataset) -> Information:
    """Return the information in bits: exact, or estimated from the training pairs' mean steps and the labels' signs."""
    if data.information is not None:
        return data.information
    part = data.part(TRAIN)
    labels = (part.labels > 0).long() if part.task == "regression" else part.labels
    x, y = (_components(values) for values in (part.x, part.y))
    return pid(x, y, labels.numpy()).information


def _components(values: Tensor) -> Any:
    """Return the first principal components (n, at most 16) of the mean over the steps of sequences that are data."""
    steps = (values != 0).any(-1, keepdim=True).sum(1).clamp(min=1)
    means = (values.sum(1) / steps).double()
    means = means - means.mean(0)
    directions = torch.linalg.svd(means, full_matrices=False).Vh[: min(COMPONENTS, *means.shape)]
    return (means @ directions.T).numpy()


def _pooled(folder: Path) -> dict[str, int]:
    """Return the pooling of the audio of AV-MNIST: 4 x 4 for its spectrograms."""
    audio = folder / "audio" / "train_data.npy"
    square = audio.is_file() and np.load(audio, mmap_mode="r", allow_pickle=False).shape[1:] == (112, 112)
    return {"audio_pool": 4} if square else {}
