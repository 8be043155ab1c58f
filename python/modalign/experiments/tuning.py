"""The best alignment strength of each modality, with an interval, from a fraction of a grid's runs.

Every round trains a batch of strengths side by side. What they gave, as the change of validation accuracy over strength
0 with the same seed, is modelled by a Gaussian process over t = asinh(strength / 0.05) that is 0 at 0, one for each
modality. All changes of a seed subtract the same run, so they share its noise. How far and how fast the curve bends is
averaged over, and so is the noise (see ``_posterior``). The next strengths are where functions drawn from the
posteriors are highest (Thompson sampling), so that runs go to where the best may lie. At the end the best strength is
that of the highest posterior mean, and its interval holds the maxima of 95 % of the functions drawn.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modalign.common.progress import Reporter
from modalign.data import PairedDataset
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.sweep.cases import notes_on, prepared
from modalign.experiments.sweep.chunks import Chunk, cut, runs_in_a_chunk, train_chunk, work_of
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.training import Run

if TYPE_CHECKING:
    from modalign.experiments.sweep.results import Results

__all__ = ["Budget", "Optimum", "against_grid", "optimum", "position", "require_grid", "run"]

SCALE = 0.05  # strengths below it are nearly 0
POINTS, FUNCTIONS = 121, 2000
FIRST_SEED = 1000  # a grid counts from 0
CHECKPOINT_SECONDS = 10.0
LENGTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)  # over which the curve bends, in shares of the range of t
RATIOS = tuple(10 ** (i / 2) for i in range(-2, 7))  # of the curve's variance to that of a run's noise
GRAIN = 1e-4  # of an accuracy: noise is not less, though all runs agree
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
        """At most, for a case of two modalities."""
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
    sweep, data = prepared(sweep)
    most = [runs_in_a_chunk(pairs, sweep) for pairs in data]  # what the encoders cannot take is said here
    settings = {
        "study": "tune", "budget": dataclasses.asdict(budget), "sweep": sweep.model_dump(mode="json"),
        "data": [pairs.fingerprint() for pairs in data],
    }  # fmt: skip
    study = Study(folder, settings, fresh=fresh)
    if workers is None and sweep.training.device != "cpu":
        workers = 1
    with study.begun():
        reporter = reporter or Reporter("none")
        for note in notes_on(sweep, data):
            reporter.say(f"note: {note}")
        seen: list[list[dict[str, Any]]] = [[] for _ in sweep.cases]
        made = [0 for _ in sweep.cases]
        strengths = [_first(budget) for _ in sweep.cases]
        for number in range(budget.rounds + 1):
            parts = []
            for i, pairs in enumerate(data):
                for seed in range(FIRST_SEED, FIRST_SEED + budget.seeds):
                    for runs in cut([Run(strength, seed) for strength in strengths[i]], most[i]):
                        parts.append(_part(study, sweep, pairs, Chunk(i, made[i], runs)))
                        made[i] += 1
            done = study.run(parts, f"{sweep.name}, round {number + 1}", workers=workers, reporter=reporter)
            for found in done:
                seen[found["case"]] += found["rows"]
            if number < budget.rounds:
                strengths = [
                    _next(rows, len(pairs.modalities), budget, number) for rows, pairs in zip(seen, data, strict=True)
                ]
        study.write_table("evaluations.parquet", [
            {"case": case.label, **row} for case, rows in zip(sweep.cases, seen, strict=True) for row in rows
        ])  # fmt: skip
        optima = {
            case.label: {
                "modalities": list(case.modalities or pairs.modalities),
                "runs": len(rows),
                "optima": [
                    dataclasses.asdict(optimum(rows, m + 1, budget.highest)) for m in range(len(pairs.modalities))
                ],
            }
            for case, pairs, rows in zip(sweep.cases, data, seen, strict=True)
        }
        study.write_json("optima.json", optima)
    return study.path


def against_grid(tuned: Path, grid: Path) -> list[dict[str, Any]]:
    """For each case and modality that both have: what the search lost against a finished sweep of many strengths.

    The grid must hold strength 0 and go as far as the search did. Both choose by validation accuracy. Judged is the
    test accuracy of the grid's runs, averaged over its seeds and interpolated in t: regret = accuracy at the grid's
    choice - at the search's. cost: its runs over the grid's.
    Raises ValueError where they have no case in common, the grid does not go as far, or one is not finished.
    """
    if not (tuned / "optima.json").is_file():
        raise ValueError(f"{tuned} holds no finished search")
    optima = json.loads((tuned / "optima.json").read_text(encoding="utf-8"))
    highest = max(one["curve"]["strength"][-1] for found in optima.values() for one in found["optima"])
    results = require_grid(grid, highest)
    rows = []
    for case in results.cases:
        if case.label not in optima:
            continue
        found = optima[case.label]
        for modality, (name, one) in enumerate(zip(found["modalities"], found["optima"], strict=True), 1):
            at = [position(strength) for strength in results.strengths]
            test = results.grid(case, f"accuracy_{modality}").mean(0)
            chosen = int(results.grid(case, f"validation_accuracy_{modality}").mean(0).round(12).argmax())
            there = float(np.interp(position(one["best"]), at, test))
            rows.append({
                "case": case.label, "modality": modality, "name": name, "tuned": one["best"],
                "grid": results.strengths[chosen], "regret": float(test[chosen]) - there,
                "regret_of_none": float(test[chosen] - test[0]),  # strength 0 is the first
                "cost": found["runs"] / (len(results.strengths) * len(results.seeds)),
            })  # fmt: skip
    if not rows:
        raise ValueError(f"{tuned} and {grid} have no case in common")
    return rows


def require_grid(grid: Path, highest: float) -> Results:
    """A finished sweep; ValueError where nothing can be read off it from strength 0 to ``highest``."""
    from modalign.experiments.sweep.results import read

    results = read(grid)
    strengths = results.strengths
    if strengths[0] != 0 or position(strengths[-1]) < position(highest) - 1e-6:
        raise ValueError(
            f"{grid} must hold strength 0 and go as far as the search, to {highest:g}, got strengths from "
            f"{strengths[0]:g} to {strengths[-1]:g}; search with --highest {strengths[-1]:g}, or name another sweep"
        )
    return results


def _part(study: Study, sweep: Sweep, data: PairedDataset, chunk: Chunk) -> Part:
    def make(advance: Any) -> dict[str, Any]:
        stop = threading.Event()  # the study stops a part by raising in advance
        result = train_chunk(
            chunk, data, sweep, study.place, lambda work, resumed=False: advance(work), stop, CHECKPOINT_SECONDS
        )
        rows = [
            {"strength": run.strength, "seed": run.seed,
             **{f"{kind}_{m + 1}": result[f"{kind}_{m + 1}"][i] for m in range(len(data.modalities))
                for kind in ("validation_accuracy", "accuracy")}}
            for i, run in enumerate(chunk.runs)
        ]  # fmt: skip
        return {"case": chunk.case, "rows": rows}

    return Part(f"rows-{chunk.name}", work_of(chunk, data, sweep), make)


def _first(budget: Budget) -> list[float]:
    """0 and strengths evenly spaced in t, each rounded to three digits."""
    return [_rounded(SCALE * np.sinh(t)) for t in np.linspace(0, position(budget.highest), budget.first)]


def _next(rows: Sequence[dict[str, Any]], modalities: int, budget: Budget, number: int) -> list[float]:
    """Where functions of all posteriors are highest; strengths that are there already bring new seeds no more."""
    known = {row["strength"] for row in rows}
    chosen: list[float] = []
    for modality in range(1, modalities + 1):
        at, functions, _, _ = _posterior(rows, modality, budget.highest, seed=7919 * (number + 1) + modality)
        for function in functions:
            strength = _rounded(SCALE * np.sinh(at[int(function.argmax())]))
            if strength not in known and strength not in chosen:
                chosen.append(strength)
                if len(chosen) == modality * budget.per_round:
                    break
    return chosen or [_rounded(budget.highest / 2)]


def optimum(rows: Sequence[dict[str, Any]], modality: int, highest: float) -> Optimum:
    """The best strength of a modality, counted from 1, from rows of strength, seed and validation_accuracy_1, _2 ...

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
    """Places t, functions drawn there (functions, places), their mean and standard deviation.

    The change of run k of seed s is f(t_k) + e_sk - e_s0 with e of variance v: v off the diagonal for two changes of
    one seed and 2 v on it. f is Gaussian with covariance ratio v K_length, and 0 at t = 0. Prior: every length and
    ratio of the grid alike, 1 / v for v. With M = ratio K + N the covariance of the n changes y is v M, so the evidence
    of a length and ratio is |M|^(-1/2) (y' M^-1 y)^(-n/2), v is y' M^-1 y over a chi-square of n degrees of freedom,
    and f is Gaussian given all three.
    """
    column = f"validation_accuracy_{modality}"
    without = {row["seed"]: row[column] for row in rows if row["strength"] == 0}
    kept = [row for row in rows if row["strength"] > 0]
    seeds = np.array([row["seed"] for row in kept])
    change = np.array([row[column] - without[row["seed"]] for row in kept])
    noise = np.eye(len(kept)) + (seeds[:, None] == seeds)
    at = np.linspace(0, position(highest), POINTS)
    places = np.concatenate([at, [position(row["strength"]) for row in kept]])
    bases = [_from_zero(places, length * position(highest)) for length in LENGTHS]
    fits = [_Fit.of(np.sqrt(ratio) * basis, noise, change) for basis in bases for ratio in RATIOS]
    evidence = np.array([fit.evidence for fit in fits])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    rng = np.random.default_rng(seed)
    drawn = [fit.draw(count, rng) for fit, count in zip(fits, rng.multinomial(FUNCTIONS, weights), strict=True)]
    functions = rng.permutation(np.concatenate(drawn))
    mean = weights @ np.array([fit.mean for fit in fits])
    return at, functions, mean, functions.std(0)


def _from_zero(places: Array, length: float) -> Array:
    """B, (places, functions): B w with w standard normal is a smooth random function that is 0 at 0."""
    kernel = np.exp(-((places[:, None] - places) ** 2) / (2 * length**2))
    at_zero = np.exp(-(places**2) / (2 * length**2))
    eigenvalues, vectors = np.linalg.eigh(kernel - at_zero[:, None] * at_zero)
    kept = eigenvalues > 1e-9 * eigenvalues[-1]
    basis: Array = vectors[:, kept] * np.sqrt(eigenvalues[kept])
    return basis


@dataclasses.dataclass(frozen=True)
class _Fit:
    """What one length and ratio make of the changes. Given v, the curve is basis @ (centre + sqrt(v) root @ normal)."""

    basis: Array  # (POINTS, functions)
    centre: Array
    root: Array
    scatter: float  # v times a chi-square
    changes: int
    evidence: float  # its logarithm

    @classmethod
    def of(cls, basis: Array, noise: Array, change: Array) -> _Fit:
        """basis: over the places and then the changes."""
        n, seen = len(change), basis[POINTS:]
        within = seen @ seen.T + noise
        solved = np.linalg.solve(within, np.concatenate([change[:, None], seen], 1))
        scatter = float(change @ solved[:, 0]) + n * GRAIN**2
        eigenvalues, vectors = np.linalg.eigh(np.eye(basis.shape[1]) - seen.T @ solved[:, 1:])
        root = vectors * np.sqrt(eigenvalues.clip(0))
        evidence = -(np.linalg.slogdet(within)[1] + n * np.log(scatter)) / 2
        return cls(basis[:POINTS], seen.T @ solved[:, 0], root, scatter, n, float(evidence))

    @property
    def mean(self) -> Array:
        curve: Array = self.basis @ self.centre
        return curve

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        deviations = np.sqrt(self.scatter / rng.chisquare(self.changes, (count, 1)))
        normal = rng.normal(size=(count, len(self.centre)))
        curves: Array = (self.centre + deviations * (normal @ self.root.T)) @ self.basis.T
        return curves


def position(strength: float) -> float:
    """t = asinh(strength / 0.05): even steps of it are even steps near 0 and even ratios far from it."""
    return float(np.arcsinh(strength / SCALE))


def _rounded(strength: float) -> float:
    return float(f"{strength:.3g}")
