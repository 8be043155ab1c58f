"""Folders of finished studies, as the studies write them, made of constructed numbers, and their pages."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import modalign
from modalign.experiments import advice as advise
from modalign.experiments import tuning as tune
from modalign.experiments.studies import (
    emergence_claims,
    layer_pairs,
    multibench_claims,
    strength_claims,
    vision_language,
    vision_language_claims,
)
from modalign.experiments.studies.caption_changes import KINDS
from modalign.experiments.studies.claims import records
from modalign.experiments.sweep.findings import findings
from modalign.experiments.sweep.results import read
from modalign.information import Information, PIDEstimate
from modalign.report import write
from modalign.report.pages import advice as advice_page
from modalign.report.pages import alignment as alignment_page
from modalign.report.pages import comparison as comparison_page
from modalign.report.pages import emergence as emergence_page
from modalign.report.pages import multibench as multibench_page
from modalign.report.pages import strength as align_page
from modalign.report.pages import tune as tune_page
from modalign.report.pages import vision_language as vision_language_page
from report.sweeps import PROVENANCE, constant, write_sweep

REDUNDANCIES = (0, 2, 4, 6, 8)
PAIRS = ("image x text", "halves of a digit")
NOTHING = Information(0.1, 0.2, 0.3, 0.05, 0.3, 0.4, 0.65)


def emergence_study(
    folder: Path,
    *,
    uniqueness: Sequence[int] = (0, 4, 8),
    heterogeneity: Sequence[int] = (1, 3, 5),
    seeds: Sequence[int] = (2, 22),
    depths: Sequence[int] = (1, 2, 3),
    **settings: object,
) -> Path:
    """Write a study whose alignment falls with uniqueness and heterogeneity, and its page."""
    rng = np.random.default_rng(0)
    rows = []
    for u, d, seed, depth in itertools.product(uniqueness, heterogeneity, seeds, depths):
        level = 0.9 - 0.1 * u - 0.02 * d
        scores = {name: level + rng.normal(0, 0.02) for name in layer_pairs.MEASURES}
        keys = {"uniqueness": u, "heterogeneity": d, "seed": seed, "depth_1": 1}
        rows.append(keys | {"depth_2": depth, "accuracy": 0.9 - 0.05 * depth, **scores})
    _begin(folder, {"study": "emergence", "seeds": list(seeds), "n": 1500, **settings})
    pd.DataFrame(rows).to_parquet(folder / "alignment.parquet")
    pd.DataFrame({"depth": [1]}).to_parquet(folder / "models.parquet")
    _write_claims(folder, emergence_claims.claims(folder))
    return emergence_page.write(folder)


def align_study(folder: Path) -> Path:
    """Write a study of sweeps of synthetic data and of pairs with their best strengths, and its page."""
    labels = [f"R = {value}" for value in REDUNDANCIES]
    table = constant({0.0: [0.5, 0.52, 0.51], 0.3: [0.55, 0.58, 0.55], 2.0: [0.48, 0.5, 0.47]})
    rows = []
    for name, cases, kind, setting in (
        ("strength", labels, "synthetic", "default"),
        ("pairs", PAIRS, "pairs", "default"),
        ("width-24", labels, "synthetic", "width 24"),
    ):
        place = write_sweep(
            folder / name, table, cases=cases, strengths=[0.0, 0.3, 2.0], seeds=[0, 1, 2], epochs=2
        )  # fmt: skip
        for number, found in enumerate(findings(read(place))):
            low, high = found.best_range or (np.nan, np.nan)
            share = min(number // 2 / 4, 1.0)
            parts = dataclasses.asdict(NOTHING) | {"redundancy": share, "mutual_12": 1.0}
            rows.append({
                "kind": kind, "setting": setting, "case": found.case.label, "modality": found.modality,
                "name": found.name, "best": found.best, "best_low": low, "best_high": high, "gain": found.gain.mean,
                "gain_low": found.gain.low, "gain_high": found.gain.high, "end": found.end.mean,
                "end_low": found.end.low, "end_high": found.end.high, "strongest": found.strongest,
                "trend": found.trend, **parts,
            })  # fmt: skip
    _begin(folder, {"study": "align"})
    pd.DataFrame(rows).to_parquet(folder / "best.parquet")
    _write_claims(folder, strength_claims.claims(folder))
    return align_page.write(folder)


def vision_language_study(
    folder: Path, kinds: Sequence[str] = KINDS, levels: Sequence[int] = (0, 10, 50, 100), **settings: object
) -> Path:
    """Write a study whose alignment falls with uniqueness, for encoders of one and of four layers, and its page."""
    rng = np.random.default_rng(0)
    rows, layers, examples = [], [], []
    for kind in kinds:
        for uniqueness in levels:
            examples.append(
                {"uniqueness": uniqueness, "kind": kind, "captions": ["a <b>red</b> fox", "one $old$ boat"]}
            )
            for encoder, depth in (("tfidf", 1), ("a_language_model_with_a_long_name", 4)):
                for images in ("Twemoji", "Noto"):
                    for seed in (0, 1):
                        keys = {
                            "kind": kind,
                            "uniqueness": uniqueness,
                            "encoder": encoder,
                            "images": images,
                            "seed": seed,
                        }
                        scores = {
                            name: 0.16 - 0.0014 * uniqueness + rng.normal(0, 0.004, depth)
                            for name in vision_language.MEASURES
                        }
                        chance = {"chance": 0.01, "threshold": 0.012, "p": 0.005, "image_layer": 0}
                        rows.append(keys | {name: float(score.max()) for name, score in scores.items()} | chance)
                        for layer in range(depth):
                            found = {name: float(score[layer]) for name, score in scores.items()}
                            layers.append(keys | {"image_layer": 0, "text_layer": layer, **found})
    models = [
        {"encoder": "tfidf", "spec": "tfidf", "layers": 1, "width": 256, "bits_per_byte": None},
        {"encoder": rows[-1]["encoder"], "spec": "transformers:/models/long", "layers": 4, "width": 576,
         "bits_per_byte": 2.4},
    ]  # fmt: skip
    _begin(
        folder, {"study": "vision-language", "seeds": [0, 1], "items": 1024, "k": 10, "kinds": list(kinds), **settings}
    )
    for name, table in (("alignment", rows), ("layers", layers), ("models", models)):
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    (folder / "examples.json").write_text(json.dumps(examples), encoding="utf-8")
    (folder / "notes.json").write_text(json.dumps(vision_language_claims.notes(folder)), encoding="utf-8")
    _write_claims(folder, vision_language_claims.claims(folder))
    return vision_language_page.write(folder)


def multibench_study(folder: Path) -> Path:
    """Write a study of three modalities whose scores grow with depth, and its page."""
    rng = np.random.default_rng(0)
    modalities, depths, seeds = ("vision", "audio", "text"), (1, 2, 3, 4), (2, 22)
    models = [
        {"modality": name, "depth": depth, "seed": seed, "validation_score": 0.5 + 0.04 * depth, "score": score,
         "chance": 0.52}
        for name in modalities for depth in depths for seed in seeds
        for score in [0.5 + 0.03 * depth + rng.normal(0, 0.01)]
    ]  # fmt: skip
    rows = []
    for varying, other in itertools.permutations(modalities, 2):
        for model in (model for model in models if model["modality"] == varying):
            keys = {
                "part": "test", "varying": varying, "other": other, "seed": model["seed"], "depth": model["depth"],
            }  # fmt: skip
            for layer in range(2):
                scores = {name: 0.2 + 0.1 * model["score"] + rng.normal(0, 0.01) for name in layer_pairs.MEASURES}
                rows.append(keys | {"depth_other": 4, "layer": layer, "score": model["score"]} | scores)
    settings = {
        "study": "multibench", "dataset": "mosi", "seeds": list(seeds), "depths": list(depths), "epochs": 1,
        "trials": 1, "items": 40, "steps": 8, "data": {"pairs": [40, 20, 40]}, "protocol": "default",
    }  # fmt: skip
    _begin(folder, settings)
    for name, table in (("models", models), ("alignment", rows)):
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")
    pd.DataFrame(multibench_claims.correlations(folder)).to_parquet(folder / "correlations.parquet")
    _write_claims(folder, multibench_claims.claims(folder))
    return multibench_page.write(folder)


def tune_search(folder: Path, cases: Sequence[str] = ("true pairs", "permuted $\\bad$")) -> Path:
    """Write runs whose accuracy peaks at a middle strength, the optimum of each modality, and the page."""
    rng = np.random.default_rng(0)
    evaluations, optima = [], {}
    for case in cases:
        rows = []
        for strength in (0.0, 0.1, 0.3, 1.0, 4.0):
            for seed in (1000, 1001):
                level = 0.6 + 0.02 * np.exp(-((np.arcsinh(strength / 0.05) - 2.5) ** 2))
                scores = {f"validation_accuracy_{m}": level + rng.normal(0, 0.003) for m in (1, 2)}
                rows.append({"strength": strength, "seed": seed, **scores})
        evaluations += [{"case": case, **row} for row in rows]
        found = [dataclasses.asdict(tune.optimum(rows, modality, 4.0)) for modality in (1, 2)]
        optima[case] = {"modalities": ["image", "text"], "runs": len(rows), "optima": found}
    _begin(folder, {"study": "tune"})
    pd.DataFrame(evaluations).to_parquet(folder / "evaluations.parquet")
    (folder / "optima.json").write_text(json.dumps(optima), encoding="utf-8")
    return tune_page.write(folder)


def advice() -> advise.Advice:
    """Return the advice for a pair that shares most of its information about the label."""
    whole = Information(1.2, 0.2, 0.4, 0.1, 1.4, 1.6, 1.9)
    intervals = {name: (0.9 * value, 1.1 * value) for name, value in dataclasses.asdict(whole).items()}
    estimate = PIDEstimate(whole, intervals, "cvx", 1644, {"method": "cvx", "seed": 0})
    rows = advise.suite()
    near = tuple(rows[:6])
    like = tuple(row["case"] for row in near)
    return advise.Advice(
        estimate, None,
        (advise.Expectation(0.1, 1.0, 0.012, -0.002, 0.03, -0.05, like, near),
         advise.Expectation(0.0, 0.6, 0.001, -0.01, 0.01, -0.2, like, near)),
    )  # fmt: skip


def fused_sweep(folder: Path) -> Path:
    """Write a sweep of three modalities and a fused model, whose gains grow from the first to the last."""

    def accuracies(case: str, position: int, strength: float) -> tuple[list[float], list[float]]:
        scores = [0.5 + 0.01 * seed + 0.02 * (position - 2.5) * strength * (1 + 0.02 * seed) for seed in range(3)]
        return scores, scores

    return write_sweep(
        folder, accuracies, cases=["true pairs", "other pairs"], strengths=[0.0, 0.3, 1.0], seeds=[0, 1, 2],
        epochs=3, pair="image-audio-text", fused=True,
    )  # fmt: skip


def alignments() -> tuple[modalign.Alignment, modalign.LayerAlignment]:
    """Return the alignment of two noisy views, and that of their layers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6))
    y = np.tanh(x) + 0.3 * rng.normal(size=x.shape)
    whole = modalign.align(x, y, ["mutual_knn", "cka", "svcca"], k=5, size_curve=True, relabellings=19)
    return whole, modalign.align_layers([x, x[:, :3], y], [y, x[:, 3:]], k=5, relabellings=19)


def every_page(room: Path) -> dict[str, tuple[Path, dict[str, int]]]:
    """Write every kind of page; return its path, and the number of table rows by the id of their section."""
    first = write_sweep(room / "first")
    second = write_sweep(room / "second", strengths=(0.0, 0.03, 0.1, 0.3, 1.0), seeds=(0, 1, 2, 3, 4))
    whole, layers = alignments()
    studies = {
        "emergence": emergence_study(room / "emergence"), "align": align_study(room / "align"),
        "vision-language": vision_language_study(room / "vision-language"),
    }  # fmt: skip
    claims = {name: len(json.loads((page.parent / "claims.json").read_text())) for name, page in studies.items()}
    both = len(REDUNDANCIES) + len(PAIRS)
    return {
        "sweep": (write(first), {"conclusions": 6, "numbers": 18}),
        "fused": (write(fused_sweep(room / "fused")), {"conclusions": 8, "numbers": 24}),
        "emergence": (studies["emergence"], {"verdicts": claims["emergence"]}),
        "align": (studies["align"], {"verdicts": claims["align"], "best": 2 * both}),
        "vision-language": (
            studies["vision-language"],
            {"verdicts": claims["vision-language"], "numbers": 8, "models": 2, "examples": 14},
        ),
        "multibench": (multibench_study(room / "multibench"), {"verdicts": 6, "correlations": 6, "encoders": 3}),
        "tune": (tune_search(room / "tune"), {"optima": 4}),
        "alignment": (alignment_page.write(whole, room / "a.html"), {"numbers": len(whole.scores)}),
        "layers": (alignment_page.write(layers, room / "l.html"), {}),
        "compare": (comparison_page.write(first, second, room / "c.html"), {"settings": 1, "changes": 6}),
        "advise": (
            advice_page.write(advice(), room / "advice.html", {"x": "x.npy"}),
            {"expectations": 2, "information": 5, "neighbours": 12},
        ),
    }  # fmt: skip


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"settings": settings, "provenance": PROVENANCE})
    (folder / "settings.json").write_text(text, encoding="utf-8")


def _write_claims(folder: Path, claims: Sequence[Any]) -> None:
    (folder / "claims.json").write_text(json.dumps(records(claims)), encoding="utf-8")
