"""The best alignment strength of each modality, with an interval, from a fraction of a grid's runs.

Every round trains a batch of strengths side by side. What they gave, as the change of validation accuracy over strength
0 with the same seed, is modelled by a Gaussian process over t = asinh(strength / 0.05), one for each modality; the next
strengths are where functions drawn from the two posteriors are highest (Thompson sampling), so that runs go to where
the best may lie. At the end the best strength is that of the highest posterior mean, and its interval holds the maxima
of 95 % of the functions drawn.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modalign.data import PairedDataset
from modalign.data import load as load_data
from modalign.experiments.chunks import Chunk, train_chunk, work_of
from modalign.experiments.config import Sweep
from modalign.experiments.progress import Reporter
from modalign.experiments.study import Part, Study
from modalign.experiments.training import Run

__all__ = ["Budget", "Optimum", "against_grid", "optimum", "position", "run"]

SCALE = 0.05  # strengths below it are nearly 0
POINTS, FUNCTIONS = 121, 2000
FIRST_SEED = 1000  # a grid counts from 0
CHECKPOINT_SECONDS = 10.0
Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Budget:
    """highest: the largest strength looked at. first: strengths of the first round, 0 among them. rounds: that follow,
    each of ``per_round`` strengths for each modality. seeds: each strength is trained with so many."""

    highest: float = 4.0
    first: int = 5
    rounds: int = 3
    per_round: int = 1
    seeds: int = 3

    def __post_init__(self) -> None:
        if not (0 < self.highest < float("inf") and self.first >= 3 and self.rounds >= 0 and self.per_round >= 1):
            raise ValueError(
                "tune: highest must be positive, first at least 3, rounds not negative and per_round positive, "
                f"got {self}"
            )
        if self.seeds < 2:
            raise ValueError(f"tune: seeds must be at least 2, so that noise can be told, got {self.seeds}")

    @property
    def runs(self) -> int:
        """At most, for each pair of modalities."""
        return self.seeds * (self.first + 2 * self.per_round * self.rounds)


@dataclasses.dataclass(frozen=True)
class Optimum:
    """Of one modality. best [low, high]: the strength; gain [gain_low, gain_high]: of validation accuracy over strength
    0 there; helps: the posterior probability of any gain. curve: strengths, mean and standard deviation."""

    best: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    helps: float
    curve: dict[str, list[float]]


def run(
    sweep: Sweep,
    folder: Path,
    budget: Budget | None = None,
    *,
    fresh: bool = False,
    reporter: Reporter | None = None,
    workers: int | None = None,
) -> Path:
    """Tune the strength for every case of ``sweep``, whose own strengths and seeds play no part.

    Leaves evaluations.parquet and optima.json in ``folder``; one that holds a part of the same study is continued.

    Raises ValueError as ``sweep.run``. Seeds count from 1,000: a grid's are others.
    """
    budget = budget or Budget()
    data = []
    for case in sweep.cases:
        arguments = dict(case.data)
        data.append(load_data(arguments.pop("name"), **arguments))
    settings = {
        "study": "tune", "budget": dataclasses.asdict(budget), "sweep": sweep.model_dump(mode="json"),
        "data": [pairs.fingerprint() for pairs in data],
    }  # fmt: skip
    study = Study(folder, settings, fresh=fresh)
    with study.begun():
        seen: list[list[dict[str, Any]]] = [[] for _ in sweep.cases]
        strengths = [_first(budget) for _ in sweep.cases]
        for number in range(budget.rounds + 1):
            parts = []
            for i, pairs in enumerate(data):
                for seed in range(FIRST_SEED, FIRST_SEED + budget.seeds):
                    runs = tuple(Run(strength, seed) for strength in strengths[i])
                    chunk = Chunk(i, number * budget.seeds + seed - FIRST_SEED, runs)  # one for each round and seed
                    parts.append(_part(study, sweep, pairs, chunk))
            done = study.run(parts, f"{sweep.name}, round {number + 1}", workers=workers, reporter=reporter)
            for found in done:
                seen[found["case"]] += found["rows"]
            if number < budget.rounds:
                strengths = [_next(rows, budget, number) for rows in seen]
        study.write_table("evaluations.parquet", [
            {"case": case.label, **row} for case, rows in zip(sweep.cases, seen, strict=True) for row in rows
        ])  # fmt: skip
        optima = {
            case.label: {
                "modalities": case.modalities or list(pairs.modalities),
                "runs": len(rows),
                "optima": [dataclasses.asdict(optimum(rows, m, budget.highest)) for m in (1, 2)],
            }
            for case, pairs, rows in zip(sweep.cases, data, seen, strict=True)
        }
        study.write_json("optima.json", optima)
    return study.path


def against_grid(tuned: Path, grid: Path) -> list[dict[str, Any]]:
    """For each case and modality that both have: what the search lost against a finished sweep of many strengths.

    Both choose by validation accuracy. Judged is the test accuracy of the grid's runs, averaged over its seeds and
    interpolated in t: regret = accuracy at the grid's choice - at the search's. cost: its runs over the grid's.
    Raises ValueError where they have no case in common, or one of them is not finished.
    """
    from modalign.report.results import read

    if not (tuned / "optima.json").is_file():
        raise ValueError(f"{tuned} holds no finished search")
    optima = json.loads((tuned / "optima.json").read_text(encoding="utf-8"))
    results = read(grid)
    rows = []
    for case in results.cases:
        if case.label not in optima:
            continue
        found = optima[case.label]
        for modality, one in enumerate(found["optima"], 1):
            at = [position(strength) for strength in results.strengths]
            test = results.grid(case, f"accuracy_{modality}").mean(0)
            chosen = int(results.grid(case, f"validation_accuracy_{modality}").mean(0).round(12).argmax())
            there = float(np.interp(position(one["best"]), at, test))
            rows.append({
                "case": case.label, "modality": modality, "name": case.modalities[modality - 1], "tuned": one["best"],
                "grid": results.strengths[chosen], "regret": float(test[chosen]) - there,
                "regret_of_none": float(test[chosen] - test[0]),
                "cost": found["runs"] / (len(results.strengths) * len(results.seeds)),
            })  # fmt: skip
    if not rows:
        raise ValueError(f"{tuned} and {grid} have no case in common")
    return rows


def _part(study: Study, sweep: Sweep, data: PairedDataset, chunk: Chunk) -> Part:
    def make(advance: Any) -> dict[str, Any]:
        stop = threading.Event()  # the study stops a part by raising in advance
        result = train_chunk(
            chunk, data, sweep, study.place, lambda work, resumed=False: advance(work), stop, CHECKPOINT_SECONDS
        )
        rows = [
            {"strength": run.strength, "seed": run.seed,
             **{key: result[key][i] for m in (1, 2) for key in (f"validation_accuracy_{m}", f"accuracy_{m}")}}
            for i, run in enumerate(chunk.runs)
        ]  # fmt: skip
        return {"case": chunk.case, "rows": rows}

    return Part(f"rows-{chunk.name}", work_of(chunk, data, sweep), make)


def _first(budget: Budget) -> list[float]:
    """0 and strengths evenly spaced in t, each rounded to three digits."""
    return [_rounded(SCALE * np.sinh(t)) for t in np.linspace(0, position(budget.highest), budget.first)]


def _next(rows: Sequence[dict[str, Any]], budget: Budget, number: int) -> list[float]:
    """Where functions of both posteriors are highest; strengths that are there already bring new seeds no more."""
    known = {row["strength"] for row in rows}
    chosen: list[float] = []
    for modality in (1, 2):
        at, functions, _, _ = _posterior(rows, modality, budget.highest, seed=7919 * (number + 1) + modality)
        for function in functions:
            strength = _rounded(SCALE * np.sinh(at[int(function.argmax())]))
            if strength not in known and strength not in chosen:
                chosen.append(strength)
                if len(chosen) == modality * budget.per_round:
                    break
    return chosen or [_rounded(budget.highest / 2)]


def optimum(rows: Sequence[dict[str, Any]], modality: int, highest: float) -> Optimum:
    """The best strength of modality 1 or 2 from rows of strength, seed, validation_accuracy_1 and _2.

    Strength 0 must be there with every seed.
    """
    at, functions, mean, deviation = _posterior(rows, modality, highest, seed=0)
    strengths = SCALE * np.sinh(at)
    best = int(mean.round(9).argmax())
    low, high = np.quantile(strengths[functions.argmax(1)], [0.025, 0.975], method="nearest")
    gains = functions[:, best] - functions[:, 0]
    gain_low, gain_high = np.quantile(gains, [0.025, 0.975])
    return Optimum(
        best=_rounded(float(strengths[best])), low=_rounded(float(low)), high=_rounded(float(high)),
        gain=float(mean[best] - mean[0]), gain_low=float(gain_low), gain_high=float(gain_high),
        helps=float((gains > 0).mean()) if best else 0.0,
        curve={"strength": strengths.tolist(), "mean": mean.tolist(), "deviation": deviation.tolist()},
    )  # fmt: skip


def _posterior(
    rows: Sequence[dict[str, Any]], modality: int, highest: float, seed: int
) -> tuple[Array, Array, Array, Array]:
    """Places t, functions drawn there (functions, places), their mean and standard deviation."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    column = f"validation_accuracy_{modality}"
    without = {row["seed"]: row[column] for row in rows if row["strength"] == 0}
    t = np.array([[position(row["strength"])] for row in rows])
    change = np.array([row[column] - without[row["seed"]] for row in rows])
    spread = float(change.std()) or 1e-3
    # a curve bends over about the range, and noise is no more than what runs differ by
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * RBF(
        position(highest) / 3, (position(highest) / 8, 2 * position(highest))
    )
    kernel += WhiteKernel(0.1, (1e-4, 2.0))
    # strength 0 is 0 by definition, for every seed: said once with little noise, not once for each seed
    kept = t[:, 0] > 0
    places, values = np.concatenate([[[0.0]], t[kept]]), np.concatenate([[0.0], change[kept] / spread])
    noise = np.concatenate([[1e-6], np.full(int(kept.sum()), 1e-6)])
    model = GaussianProcessRegressor(kernel, alpha=noise, n_restarts_optimizer=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length or a noise at the end of its range is an answer
        model.fit(places, values)
    at = np.linspace(0, position(highest), POINTS)
    fitted = model.kernel_.k1  # without the noise: of the curve, not of a run
    cross, prior = fitted(at[:, None], places), fitted(at[:, None])
    within = model.kernel_(places) + np.diag(noise)
    within[0, 0] -= model.kernel_.k2.noise_level  # the exact point
    solved = np.linalg.solve(within + 1e-8 * np.eye(len(within)), np.concatenate([values[:, None], cross.T], 1))
    mean = cross @ solved[:, 0]
    covariance = prior - cross @ solved[:, 1:]
    eigenvalues, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    draws = np.random.default_rng(seed).normal(size=(FUNCTIONS, POINTS))
    functions = mean + (draws * np.sqrt(eigenvalues.clip(0))) @ vectors.T
    deviation = np.sqrt(np.diag(covariance).clip(0))
    return at, spread * functions, spread * mean, spread * deviation


def position(strength: float) -> float:
    """t = asinh(strength / 0.05): even steps of it are even steps near 0 and even ratios far from it."""
    return float(np.arcsinh(strength / SCALE))


def _rounded(strength: float) -> float:
    return float(f"{strength:.3g}")
