"""Search for the best alignment strength of each modality, with an interval, from a fraction of a grid's runs.

Every round trains a batch of strengths side by side. The change of validation accuracy over strength 0 with the same
seed is modelled by a Gaussian process over t = asinh(strength / 0.05), one for each modality (see
``gaussian_process``). The next strengths are where functions drawn from the posteriors are highest (Thompson sampling),
so that runs go to where the best may lie. At the end the best strength is that of the highest posterior mean, and its
interval holds the maxima of 95 % of the functions drawn.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from modalign.common.progress import Reporter
from modalign.data import PairedDataset
from modalign.experiments.gaussian_process import Changes, Posterior, position, posterior, strength_at
from modalign.experiments.studies.study import Part, Study
from modalign.experiments.sweep.cases import notes_on, prepared
from modalign.experiments.sweep.chunks import Chunk, Control, Job, cut, train_chunk
from modalign.experiments.sweep.config import Sweep
from modalign.experiments.sweep.memory import runs_in_a_chunk
from modalign.experiments.sweep.results import Results, read
from modalign.experiments.sweep.training import Run

__all__ = ["Budget", "Optimum", "Regret", "against_grid", "optimum", "require_grid", "run"]

FIRST_SEED = 1000  # a grid counts from 0
CHECKPOINT_SECONDS = 10.0
# of accuracy: a curve drawn from a posterior is above 0 somewhere, by less, where nothing helps
SMALLEST_GAIN = 0.002
Evaluation = Mapping[str, Any]  # strength, seed, and validation_accuracy_1, accuracy_1, ... of one run


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits of a search.

    Args:
        highest: The largest strength looked at.
        first: Strengths of the first round, 0 among them.
        rounds: Number of rounds after the first.
        per_round: Strengths of each of those rounds, for each modality.
        seeds: Runs of each strength.

    Raises:
        ValueError: If a number is out of range.
    """

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
            raise ValueError(f"tune: seeds must be at least 2, so that noise can be estimated, got {self.seeds}")

    @property
    def runs(self) -> int:
        """The largest number of runs for a case of two modalities."""
        return self.seeds * (self.first + 2 * self.per_round * self.rounds)


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The best strength of one modality.

    Args:
        best: The strength with the highest posterior mean.
        low: Lower end of its 95 % interval.
        high: Upper end.
        gain: Validation accuracy there less that at strength 0.
        gain_low: Lower end of the gain's 95 % interval.
        gain_high: Upper end.
        helps: Posterior probability that any strength gains 0.2 points of accuracy or more.
        curve: Lists of equal length: strength, and mean and deviation of the change there.
    """

    best: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    helps: float
    curve: dict[str, list[float]]


class Regret(TypedDict):
    """A row of ``against_grid``: the loss of a search against a grid, for one modality of one case."""

    case: str
    modality: int
    name: str
    tuned: float
    grid: float
    regret: float
    regret_of_none: float
    cost: float


def run(
    sweep: Sweep,
    folder: Path,
    budget: Budget | None = None,
    *,
    fresh: bool = False,
    reporter: Reporter | None = None,
    workers: int | None = None,
) -> Path:
    """Tune the strength for every case of ``sweep``, whose strengths and seeds play no part.

    Args:
        sweep: The configuration.
        folder: Where evaluations.parquet and optima.json are written. A folder that holds part of the same search is
            continued.
        budget: Limits of the search.
        fresh: Forget what the folder holds of an earlier search.
        reporter: Shows progress and notes.
        workers: Chunks that train at once, each on one core; by default one for each core. It changes no number.

    Returns:
        The folder.

    Raises:
        ValueError: As ``sweep.run``. Seeds count from 1,000, so that a grid's are others.
    """
    budget = budget or Budget()
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + budget.seeds))
    given = sweep.seeds
    sweep, data = prepared(sweep.model_copy(update={"seeds": seeds}))
    sweep = sweep.model_copy(update={"seeds": given})
    # raises for inputs the encoders cannot take
    largest = [runs_in_a_chunk(draws.first, sweep) for draws in data]
    settings = {
        "study": "tune",
        "budget": dataclasses.asdict(budget),
        "sweep": sweep.model_dump(mode="json"),
        "data": [draws.fingerprint() for draws in data],
    }
    study = Study(folder, settings, fresh=fresh)
    if workers is None and sweep.training.device != "cpu":
        workers = 1
    with study.begun():
        reporter = reporter or Reporter("none")
        for note in notes_on(sweep, data):
            reporter.say(f"note: {note}")
        evaluations: list[list[Evaluation]] = [[] for _ in sweep.cases]
        trained = [0 for _ in sweep.cases]
        strengths = [_first_strengths(budget) for _ in sweep.cases]
        for number in range(budget.rounds + 1):
            parts = []
            for i, draws in enumerate(data):
                for seed in seeds:
                    for runs in cut([Run(strength, seed) for strength in strengths[i]], largest[i]):
                        parts.append(_part(study, Job(Chunk(i, trained[i], runs), draws, sweep)))
                        trained[i] += 1
            title = f"{sweep.name}, round {number + 1}"
            for result in study.run(parts, title, workers=workers, reporter=reporter):
                evaluations[result["case"]] += result["rows"]
            if number < budget.rounds:
                strengths = [
                    _next_strengths(rows, len(draws.first.modalities), budget, number)
                    for rows, draws in zip(evaluations, data, strict=True)
                ]
        _write(study, sweep, [draws.first for draws in data], evaluations, highest=budget.highest)
    return study.path


def _write(
    study: Study,
    sweep: Sweep,
    data: Sequence[PairedDataset],
    evaluations: Sequence[Sequence[Evaluation]],
    *,
    highest: float,
) -> None:
    rows_of = list(zip(sweep.cases, data, evaluations, strict=True))
    study.write_table("evaluations.parquet", [{"case": case.label, **row} for case, _, rows in rows_of for row in rows])
    optima = {
        case.label: {
            "modalities": list(case.modalities or pairs.modalities),
            "runs": len(rows),
            "optima": [dataclasses.asdict(optimum(rows, m + 1, highest)) for m in range(len(pairs.modalities))],
        }
        for case, pairs, rows in rows_of
    }
    study.write_json("optima.json", optima)


def against_grid(tuned: Path, grid: Path) -> list[Regret]:
    """Compare a search with a finished sweep of many strengths, for each case and modality that both have.

    Both choose a strength by validation accuracy. The judge is the test accuracy of the grid's runs, averaged over its
    seeds and interpolated in t: the regret is the accuracy at the grid's choice less that at the search's.

    Args:
        tuned: Folder of a finished search.
        grid: Folder of a finished sweep that holds strength 0 and goes as far as the search did.

    Returns:
        One row for each case and modality; ``cost`` is the number of the search's runs over that of the grid's.

    Raises:
        ValueError: If they have no case in common, the grid does not go as far, or one is not finished.
    """
    if not (tuned / "optima.json").is_file():
        raise ValueError(f"{tuned} holds no finished search")
    optima = json.loads((tuned / "optima.json").read_text(encoding="utf-8"))
    highest = max(best["curve"]["strength"][-1] for entry in optima.values() for best in entry["optima"])
    results = require_grid(grid, highest)
    places = [position(strength) for strength in results.strengths]
    rows: list[Regret] = []
    for case in results.cases:
        if case.label not in optima:
            continue
        entry = optima[case.label]
        for modality, (name, best) in enumerate(zip(entry["modalities"], entry["optima"], strict=True), 1):
            test = results.grid(case, f"accuracy_{modality}").mean(0)
            chosen = int(results.grid(case, f"validation_accuracy_{modality}").mean(0).round(12).argmax())
            rows.append(
                Regret(
                    case=case.label,
                    modality=modality,
                    name=name,
                    tuned=best["best"],
                    grid=results.strengths[chosen],
                    regret=float(test[chosen]) - float(np.interp(position(best["best"]), places, test)),
                    regret_of_none=float(test[chosen] - test[0]),  # strength 0 is the first
                    cost=entry["runs"] / (len(results.strengths) * len(results.seeds)),
                )
            )
    if not rows:
        raise ValueError(f"{tuned} and {grid} have no case in common")
    return rows


def require_grid(grid: Path, highest: float) -> Results:
    """Read a finished sweep; ValueError unless it holds strength 0 and goes as far as ``highest``."""
    results = read(grid)
    strengths = results.strengths
    if strengths[0] != 0 or position(strengths[-1]) < position(highest) - 1e-6:
        raise ValueError(
            f"{grid} must hold strength 0 and go as far as the search, to {highest:g}, got strengths from "
            f"{strengths[0]:g} to {strengths[-1]:g}; search with --highest {strengths[-1]:g}, or name another sweep"
        )
    return results


def optimum(rows: Sequence[Evaluation], modality: int, highest: float) -> Optimum:
    """Estimate the best strength of a modality from runs.

    Args:
        rows: One mapping for each run: strength, seed, validation_accuracy_1, validation_accuracy_2, ... Strength 0
            must be there with every seed.
        modality: Number of the modality, from 1.
        highest: The largest strength.
    """
    fitted = _posterior(rows, modality, highest, seed=0)
    best = int(fitted.mean.round(9).argmax())
    low, high = np.quantile(fitted.strengths[fitted.functions.argmax(1)], [0.025, 0.975], method="nearest")
    gains = fitted.functions[:, best] - fitted.functions[:, 0]
    gain_low, gain_high = np.quantile(gains, [0.025, 0.975])
    return Optimum(
        best=_rounded(fitted.strengths[best]),
        low=_rounded(low),
        high=_rounded(high),
        gain=float(fitted.mean[best] - fitted.mean[0]),
        gain_low=float(gain_low),
        gain_high=float(gain_high),
        helps=float((fitted.functions.max(1) - fitted.functions[:, 0] >= SMALLEST_GAIN).mean()),
        curve={
            "strength": fitted.strengths.tolist(),
            "mean": fitted.mean.tolist(),
            "deviation": fitted.deviation.tolist(),
        },
    )


def _posterior(rows: Sequence[Evaluation], modality: int, highest: float, seed: int) -> Posterior:
    """Model the changes of a modality's validation accuracy over strength 0."""
    column = f"validation_accuracy_{modality}"
    without = {row["seed"]: row[column] for row in rows if row["strength"] == 0}
    changed = [row for row in rows if row["strength"] > 0]
    changes = Changes(
        strengths=np.array([row["strength"] for row in changed]),
        seeds=np.array([row["seed"] for row in changed]),
        values=np.array([row[column] - without[row["seed"]] for row in changed]),
    )
    return posterior(changes, highest, seed)


def _part(study: Study, job: Job) -> Part:
    """Return the part of the study that trains a chunk."""

    def make(advance: Callable[[int], None]) -> dict[str, Any]:
        def on_progress(work: int, resumed: bool = False) -> None:
            advance(work)

        # the study stops a part by raising in advance, so nothing sets this event
        control = Control(on_progress, threading.Event(), CHECKPOINT_SECONDS)
        result = train_chunk(job, study.place, control)
        rows = [
            {
                "strength": run.strength,
                "seed": run.seed,
                **{
                    f"{kind}_{m + 1}": result[f"{kind}_{m + 1}"][i]
                    for m in range(len(job.data.first.modalities))
                    for kind in ("validation_accuracy", "accuracy")
                },
            }
            for i, run in enumerate(job.chunk.runs)
        ]
        return {"case": job.chunk.case, "rows": rows}

    return Part(f"rows-{job.chunk.name}", job.work, make)


def _first_strengths(budget: Budget) -> list[float]:
    """Return 0 and strengths evenly spaced in t."""
    return [strength_at(t) for t in np.linspace(0, position(budget.highest), budget.first)]


def _next_strengths(rows: Sequence[Evaluation], modalities: int, budget: Budget, number: int) -> list[float]:
    """Return new strengths where functions of the posteriors of all modalities are highest."""
    known = {row["strength"] for row in rows}
    chosen: list[float] = []
    for modality in range(1, modalities + 1):
        fitted = _posterior(rows, modality, budget.highest, seed=7919 * (number + 1) + modality)
        for function in fitted.functions:
            strength = strength_at(fitted.places[int(function.argmax())])
            if strength not in known and strength not in chosen:
                chosen.append(strength)
                if len(chosen) == modality * budget.per_round:
                    break
    return chosen or [_rounded(budget.highest / 2)]


def _rounded(strength: float) -> float:
    return float(f"{strength:.3g}")
