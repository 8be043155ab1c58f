"""Folders of finished sweeps, as a sweep writes them, made of constructed numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

STRENGTHS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
SEEDS = (0, 1, 2, 3, 4)
CASES = ("true pairs", "permuted within group", "permuted at random")

# change of each modality's accuracy against that without alignment, by case, at STRENGTHS
GAINS: Mapping[str, tuple[Sequence[float], Sequence[float]]] = {
    "true pairs": ((0, 0.006, 0.014, 0.026, 0.016, -0.022), (0, 0.003, 0.008, 0.012, -0.002, -0.043)),
    "permuted within group": ((0, 0.004, 0.010, 0.022, 0.012, -0.020), (0, 0.012, 0.026, 0.057, 0.055, 0.006)),
    "permuted at random": ((0, -0.001, -0.002, -0.004, -0.066, -0.245), (0, 0.001, 0.001, -0.006, -0.080, -0.291)),
}
MEASURES = ("mutual_knn", "cka", "unbiased_cka", "svcca")
KINDS = ("task_loss", "validation_accuracy")  # of curves that every predictor has
PAIRING = {"true pairs": "true", "permuted within group": "within-group", "permuted at random": "random"}
PROVENANCE = {
    "modalign_commit": "0123456789abcdef0123456789abcdef01234567",
    "versions": {"python": "3.11.7", "modalign": "0.1.0", "torch": "2.13.0", "triton": None, "numpy": "2.4.6"},
    "machine": {"platform": "Linux-6.1-x86_64", "processor": "A processor", "cores": 2, "threads": 2, "gpus": []},
    "time": "2026-01-02T03:04:05+00:00",
    "command": "modalign sweep emoji.yaml",
    "seed": list(SEEDS),
}

# (case, modality, strength) -> (validation accuracies, test accuracies), one for each seed
Accuracies = Callable[[str, int, float], tuple[Sequence[float], Sequence[float]]]


def realistic(seed: int = 0) -> Accuracies:
    """Return curves like those of emoji: a seed shifts all of its accuracies, and each run adds noise."""
    rng = np.random.default_rng(seed)
    levels = {(case, modality): rng.normal(0.67 if modality == 1 else 0.73, 0.010, len(SEEDS))
              for case in CASES for modality in (1, 2)}  # fmt: skip

    def accuracies(case: str, modality: int, strength: float) -> tuple[Sequence[float], Sequence[float]]:
        mean = levels[case, modality] + GAINS[case][modality - 1][STRENGTHS.index(strength)]
        validation, test = mean + rng.normal(0, 0.006, (2, len(SEEDS)))
        return validation.tolist(), test.tolist()

    return accuracies


def constant(table: Mapping[float, Sequence[float]]) -> Accuracies:
    """Return the same accuracies, {strength: one for each seed}, for validation and test, every case and modality."""
    return lambda case, modality, strength: (table[strength], table[strength])


def write_sweep(
    folder: Path,
    accuracies: Accuracies | None = None,
    *,
    cases: Sequence[str] = CASES,
    strengths: Sequence[float] = STRENGTHS,
    seeds: Sequence[int] = SEEDS,
    epochs: int = 20,
    pair: str = "image-text",
    fused: bool = False,
) -> Path:
    """Write a finished sweep into ``folder``; by default 3 cases, 6 strengths and 5 seeds.

    The names of the modalities are the parts of ``pair``; the fused model comes after them.
    """
    accuracies = accuracies or realistic()
    rng = np.random.default_rng(1)
    count = max(len(pair.split("-")), 2)
    suffixes = [*(str(number) for number in range(1, count + 1)), *(["fused"] if fused else [])]
    runs: list[dict[str, Any]] = []
    curves: list[pd.DataFrame] = []
    for case in cases:
        shared = {"true": 0.20, "within-group": 0.07, "random": 0.02}[PAIRING.get(case, "true")]
        for strength in strengths:
            scores = {part: accuracies(case, number, strength) for number, part in enumerate(suffixes, 1)}
            aligned = strength / (strength + 0.3)
            for i, seed in enumerate(seeds):
                key = {"case": case, "strength": strength, "seed": seed}
                cka = 0.25 + 0.55 * aligned + rng.normal(0, 0.01)
                runs.append(
                    key
                    | {f"accuracy_{part}": test[i] for part, (_, test) in scores.items()}
                    | {f"validation_accuracy_{part}": validation[i] for part, (validation, _) in scores.items()}
                    | {"mutual_knn": 0.02 + shared * (0.3 + aligned) + rng.normal(0, 0.003), "cka": cka}
                    | {"unbiased_cka": cka - 0.04, "svcca": cka + 0.02}
                    | {f"chance_{part}": 0.21 for part in suffixes}
                    | {"mutual_knn_chance": 10 / 571, "seconds": 1.25}
                )
                for first, second in [*itertools.combinations(range(1, count + 1), 2)][1:]:
                    below = 0.02 * (first + second)
                    runs[-1] |= {f"{m}_{first}_{second}": runs[-1][m] - below for m in MEASURES}
                curves.append(_curve(key, strength, epochs, rng, suffixes))
    config = {
        "name": "emoji",
        "cases": [
            {"label": c, "data": {"name": "emoji", "pair": pair, "pairing": PAIRING.get(c, "true")}} for c in cases
        ],
        "encoders": [{"kind": "mlp", "width": 32, "depth": 2, "dim": 32}] * count,
        "projection": {"kind": "none"},
        "strengths": list(strengths),
        "seeds": list(seeds),
        "training": {"epochs": epochs, "batch_size": 256, "learning_rate": 0.002, "temperature": 0.2, "labels": 400},
        "metrics": {"k": 10},
        "fusion": "probe" if fused else "none",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE), encoding="utf-8")
    pd.DataFrame(runs).to_parquet(folder / "runs.parquet", index=False)
    pd.concat(curves).to_parquet(folder / "curves.parquet", index=False)
    return folder


def _curve(
    key: Mapping[str, Any], strength: float, epochs: int, rng: np.random.Generator, suffixes: Sequence[str]
) -> pd.DataFrame:
    """Return the training curves of one run; those of further predictors repeat the curves of modality 2."""
    epoch = np.arange(epochs)
    decay = np.exp(-epoch / 8)
    noise = rng.normal(0, 0.01, (7, epochs))
    table = pd.DataFrame(
        {
            "case": key["case"],
            "strength": key["strength"],
            "seed": key["seed"],
            "epoch": epoch,
            "task_loss_1": 0.5 + 0.1 * strength + 1.6 * decay + noise[0],
            "task_loss_2": 0.4 + 0.1 * strength + 1.7 * decay + noise[1],
            "alignment_loss": 5.5 - 3 * strength / (strength + 0.3) * (1 - decay) + noise[2],
            "gradient_norm_task": 0.2 + 1.1 * decay + np.abs(noise[3]),
            "gradient_norm_alignment": 0.05 + 0.4 * strength * (0.2 + decay) + np.abs(noise[4]),
            "validation_accuracy_1": 0.66 * (1 - 0.7 * decay) + noise[5],
            "validation_accuracy_2": 0.72 * (1 - 0.7 * decay) + noise[6],
        }
    )
    further = {f"{kind}_{part}": table[f"{kind}_2"] for part in suffixes[2:] for kind in KINDS}
    return table.assign(**further)
