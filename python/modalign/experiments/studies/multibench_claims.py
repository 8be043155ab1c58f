"""The claims of the study of MultiBench: the paper's table beside ours, from the tables that the study left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalign.experiments.studies.changes import beside_the_paper
from modalign.experiments.studies.claims import Claim
from modalign.experiments.studies.layer_pairs import MEASURES, highest_defined
from modalign.experiments.studies.measured import curve_correlation
from modalign.experiments.studies.multibench_published import has_published_widths
from modalign.files.paths import expanded

__all__ = ["PAPER", "best_of_layers", "claims", "correlations"]

# Pearson's r by the modality whose depth varies; the image of AV-MNIST is its vision
PAPER: dict[str, dict[tuple[str, str], float]] = {
    dataset: {
        ("vision", "audio"): va,
        ("audio", "vision"): av,
        ("vision", "text"): vt,
        ("text", "vision"): tv,
        ("audio", "text"): at,
        ("text", "audio"): ta,
    }
    for dataset, (va, av, vt, tv, at, ta) in {
        "mosei": (-0.223, -0.172, -0.093, -0.482, -0.145, -0.641),
        "mosi": (-0.014, 0.313, 0.116, -0.413, 0.403, -0.386),
        "humor": (-0.332, -0.336, -0.232, 0.284, -0.373, 0.083),
        "sarcasm": (0.381, 0.208, 0.436, 0.019, 0.216, 0.438),
    }.items()
} | {"av_mnist": {("image", "audio"): 0.887, ("audio", "image"): 0.723}}
# over ten depths, a smaller correlation says nothing: the claim is then that there is none
ABOUT_ZERO = 0.2
# settings of data and training define every number
DEFINING = {
    *("depths", "items", "steps", "epochs", "long", "batch_size", "clip", "compared"),
    *("trials", "learning_rates", "weight_decays"),
}


def best_of_layers(folder: Path) -> Any:
    """Return the alignment of every encoder with the best one of the other modality, the highest of all layer pairs."""
    import pandas as pd

    table = pd.read_parquet(expanded(folder) / "alignment.parquet")
    keys = ["part", "varying", "other", "seed", "depth"]
    return (
        table.groupby(keys, sort=False)
        .agg({**dict.fromkeys(MEASURES, highest_defined), "score": "first"})
        .reset_index()
    )


def correlations(folder: Path) -> list[dict[str, Any]]:
    """Return Pearson's r of alignment and score over depths, for every column of the table and every measure.

    Alignment and score are means over seeds or, under the paper's protocol, of every depth and seed. The 90 % interval
    draws seeds and depths (``curve_correlation``).
    """
    table, paper = best_of_layers(folder), _settings(folder)["protocol"] == "paper"
    rows = []
    for (part, varying, other), mine in table.groupby(["part", "varying", "other"], sort=False):
        for measure in MEASURES:
            sides = [_points(mine, name) for name in (measure, "score")]
            ours = curve_correlation(*sides, entries=paper, over="depths")
            keys = {"part": part, "varying": varying, "other": other, "measure": measure}
            rows.append({**keys, "r": ours.value, "low": ours.low, "high": ours.high})
    return rows


def claims(folder: Path) -> list[Claim]:
    """Return the paper's table beside ours, by unbiased CKA and the rules of ``claims.py``.

    The paper's numbers stand beside those that mean the same: r over depths and seeds, of its encoders on its features.
    Otherwise the claim is the paper's side of 0.
    """
    settings, table = _settings(folder), best_of_layers(folder)
    same, entries = has_published_widths(settings), settings["protocol"] == "paper"
    results = []
    tested = table[table["part"] == "test"]
    for (varying, other), mine in tested.groupby(["varying", "other"], sort=False):
        paper = PAPER[settings["dataset"]][varying, other]
        none = abs(paper) < ABOUT_ZERO
        goes = "has little to do with" if none else "goes with" if paper > 0 else "goes against"
        text = f"over depths of {varying}, alignment with the best {other} encoder {goes} performance"
        ours = curve_correlation(_points(mine, MEASURES[0]), _points(mine, "score"), entries=entries, over="depths")
        rule = "none" if none else "strong" if same else "sign"
        facts: dict[str, Any] = {"paper": paper} if same else {"side": 1 if paper > 0 else -1}
        results.append(Claim.measured(f"{varying}-{other}", text, rule, ours, **facts))
    return beside_the_paper(results, folder, lambda _: DEFINING)


def _settings(folder: Path) -> dict[str, Any]:
    record = json.loads((expanded(folder) / "settings.json").read_text(encoding="utf-8"))
    settings: dict[str, Any] = record["settings"]
    return settings


def _points(rows: Any, name: str) -> NDArray[np.float64]:
    """Return a column as (seeds, depths)."""
    values: NDArray[np.float64] = rows.pivot(index="seed", columns="depth", values=name).to_numpy()
    return values
