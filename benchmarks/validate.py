"""Whether 95 % intervals hold 95 % of the time: every kind of interval and null, by simulation.

    python -m benchmarks.validate                       1,000 replications (about a quarter of an hour on two cores)
    python -m benchmarks.validate --out FILE.json       and a record with machine, versions and commit

An interval of sampled rows has to hold the score of all rows, which is known. An interval of the population has to hold
the mean score of sets of n items, which is the mean over the replications themselves. A confidence sequence promises at
least its level. Under the null a p-value of at most 0.05 has to come 5 % of the time.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import modalign
from modalign.alignment.functional import align
from modalign.alignment.sampling import ConfidenceSequence, difference_estimate, finite_population_interval
from modalign.common import provenance
from modalign.files.atomic import write_atomically

Pair = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
POPULATION = ("mutual_knn", "jaccard_knn", "rank_similarity", "cycle_knn", "cknna", "cka", "unbiased_cka")


def normal(seed: int, n: int) -> Pair:
    """One cloud, seen through a noisy map and a noisy non-linear one."""
    rng = np.random.default_rng(seed)
    return _views(rng.normal(size=(n, 8)), rng)


def clustered(seed: int, n: int) -> Pair:
    """The same of 25 clusters."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(999).normal(size=(25, 8))
    return _views(centers[rng.integers(0, 25, n)] + 0.6 * rng.normal(size=(n, 8)), rng)


def unrelated(seed: int, n: int) -> Pair:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 8)), rng.lognormal(size=(n, 6))


def _views(z: np.ndarray[Any, Any], rng: np.random.Generator) -> Pair:
    mixed = np.tanh(z @ np.random.default_rng(5).normal(size=(8, 6)))
    return z + 0.3 * rng.normal(size=z.shape), mixed + 0.3 * rng.normal(size=(len(z), 6))


def shares(pair: Pair, k: int = 10) -> np.ndarray[Any, Any]:
    graphs = [modalign.knn(rows, k).indices for rows in pair]
    return modalign.neighbor_overlap(*graphs)[:, -1] / k


def of_a_sample(seed: int) -> dict[str, tuple[float, float, float]]:
    """(low, truth, high) of the mean over 2,000 rows."""
    every = shares(clustered(0, 2000))
    rows = np.random.default_rng(seed).permutation(2000)[:300]
    sampled = finite_population_interval(every[rows], 2000, shares=True)
    approximate = np.where(np.random.default_rng(0).random(2000) < 0.8, every, every / 2)
    difference = difference_estimate(approximate, (rows, every[rows]), 2000)
    sequence, at = ConfidenceSequence(2000, tolerance=0.02), 0
    order = np.random.default_rng(seed).permutation(2000)
    while sequence.half_width > 0.02:
        sequence.update(every[order[at : at + 50]])
        at += 50
    return {
        "sampled queries": (sampled.low, every.mean(), sampled.high),
        "difference estimator": (difference.low, every.mean(), difference.high),
        "confidence sequence, stopped at +-0.02": (sequence.low, every.mean(), sequence.high),
    }


def of_population(make: Callable[[int, int], Pair], n: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """(low, value, high) of every metric."""
    found = align(*make(seed, n), POPULATION, null="none")
    return {score.metric: (score.low, score.value, score.high) for score in found.scores}  # type: ignore[misc]


def of_null(seed: int) -> dict[str, float]:
    """p-values of unrelated representations."""
    pair = unrelated(seed, 300)
    closed = align(*pair, ["mutual_knn", "cka"], intervals=False)
    drawn = align(*pair, ["jaccard_knn", "unbiased_cka"], intervals=False, relabellings=99, seed=seed)
    found = {f"{score.metric}, {score.null.kind}": score.null.p for score in closed.scores + drawn.scores if score.null}
    within = align(*pair, ["mutual_knn"], intervals=False, within=np.arange(300) % 5, relabellings=99, seed=seed)
    return found | {"mutual_knn, relabelled within groups": within["mutual_knn"].null.p}  # type: ignore[union-attr]


def normal_600(seed: int) -> dict[str, tuple[float, float, float]]:
    return of_population(normal, 600, seed)


def clustered_600(seed: int) -> dict[str, tuple[float, float, float]]:
    return of_population(clustered, 600, seed)


def one_thread() -> None:
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="write the record here (JSON)")
    arguments = parser.parse_args()
    count, rows, console = arguments.replications, [], Console()
    with ProcessPoolExecutor(initializer=one_thread) as pool:

        def replicate(what: Callable[[int], dict[str, Any]], name: str) -> dict[str, list[Any]]:
            found = list(
                track(pool.map(what, range(count), chunksize=10), name, count, console=console, transient=True)
            )
            return {key: [one[key] for one in found] for key in found[0]}

        for what, name in (
            (of_a_sample, "rows of a set"),
            (normal_600, "normal, n = 600"),
            (clustered_600, "clusters, n = 600"),
        ):
            for kind, triples in replicate(what, name).items():
                low, value, high = np.array(triples).T
                truth = value.mean()
                covered = float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean())
                least = 0.95 if kind.startswith("confidence sequence") else None
                rows.append(
                    _row(
                        f"{kind} ({name})",
                        covered,
                        0.95,
                        least=least,
                        count=count,
                        half_width=float((high - low).mean() / 2),
                    )
                )
        for kind, p in replicate(of_null, "nulls").items():
            rows.append(
                _row(
                    f"p <= 0.05: {kind}",
                    float(np.mean(np.array(p) <= 0.05)),
                    0.05,
                    least=None,
                    count=count,
                    half_width=None,
                )
            )
    table = Table("what", "share", "wanted", "half-width", "", title=f"{count:,} replications")
    for row in rows:
        half = "" if row["half_width"] is None else f"{row['half_width']:.4f}"
        table.add_row(row["what"], f"{row['share']:.3f}", row["wanted"], half, "" if row["holds"] else "[red]no[/red]")
    console.print(table)
    if arguments.out:
        record = {"provenance": provenance.collect(), "replications": count, "rows": rows}
        write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1)))
        console.print(f"record: {arguments.out}")


def _row(
    what: str, share: float, level: float, least: float | None, count: int, half_width: float | None
) -> dict[str, Any]:
    """Within 2 points of the level, and what so many replications leave in doubt where that is more."""
    doubt = max(0.02, 2.6 * math.sqrt(level * (1 - level) / count))
    holds = share >= least if least is not None else abs(share - level) <= doubt
    wanted = f"at least {least}" if least is not None else f"{level - doubt:.3f} to {level + doubt:.3f}"
    return {"what": what, "share": share, "wanted": wanted, "holds": bool(holds), "half_width": half_width}


if __name__ == "__main__":
    main()
