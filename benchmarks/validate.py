"""Check by simulation that 95 % intervals cover the truth 95 % of the time, for every kind of interval and null.

    python -m benchmarks.validate                       1,000 replications (about a quarter of an hour on two cores)
    python -m benchmarks.validate --out FILE.json       also write a record with machine, versions and commit

An interval of sampled rows must cover the score of all rows, which is known. An interval of the population must cover
the mean score of sets of n items, which is the mean over the replications. A confidence sequence promises at least its
level. Under the null, a p-value must be at most 0.05 in 5 % of the replications.
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
    """Return two views of normal rows: with noise, and through a non-linear map with noise."""
    rng = np.random.default_rng(seed)
    return _views(rng.normal(size=(n, 8)), rng)


def clustered(seed: int, n: int) -> Pair:
    """Return two such views of rows in 25 clusters."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(999).normal(size=(25, 8))
    return _views(centers[rng.integers(0, 25, n)] + 0.6 * rng.normal(size=(n, 8)), rng)


def unrelated(seed: int, n: int) -> Pair:
    """Return two independent tables."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 8)), rng.lognormal(size=(n, 6))


def _views(z: np.ndarray[Any, Any], rng: np.random.Generator) -> Pair:
    mixed = np.tanh(z @ np.random.default_rng(5).normal(size=(8, 6)))
    return z + 0.3 * rng.normal(size=z.shape), mixed + 0.3 * rng.normal(size=(len(z), 6))


def shares(pair: Pair, k: int = 10) -> np.ndarray[Any, Any]:
    """Return the share of common neighbours of each row."""
    graphs = [modalign.knn(rows, k).indices for rows in pair]
    return modalign.neighbor_overlap(*graphs)[:, -1] / k


def sample_intervals(seed: int) -> dict[str, tuple[float, float, float]]:
    """Return (low, truth, high) of intervals for the mean over 2,000 rows, from samples of them."""
    all_shares = shares(clustered(0, 2000))
    rows = np.random.default_rng(seed).permutation(2000)[:300]
    sampled = finite_population_interval(all_shares[rows], 2000, shares=True)
    approximate = np.where(np.random.default_rng(0).random(2000) < 0.8, all_shares, all_shares / 2)
    difference = difference_estimate(approximate, (rows, all_shares[rows]), 2000)
    sequence, used = ConfidenceSequence(2000, tolerance=0.02), 0
    order = np.random.default_rng(seed).permutation(2000)
    while sequence.half_width > 0.02:
        sequence.update(all_shares[order[used : used + 50]])
        used += 50
    return {
        "sampled queries": (sampled.low, all_shares.mean(), sampled.high),
        "difference estimator": (difference.low, all_shares.mean(), difference.high),
        "confidence sequence, stopped at +-0.02": (sequence.low, all_shares.mean(), sequence.high),
    }


def population_intervals(make: Callable[[int, int], Pair], n: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Return (low, value, high) of every metric."""
    result = align(*make(seed, n), POPULATION, null="none")
    return {score.metric: (score.low, score.value, score.high) for score in result.scores}  # type: ignore[misc]


def null_p_values(seed: int) -> dict[str, float]:
    """Return p-values of unrelated representations, by metric and kind of null."""
    pair = unrelated(seed, 300)
    closed = align(*pair, ["mutual_knn", "cka"], intervals=False)
    drawn = align(*pair, ["jaccard_knn", "unbiased_cka"], intervals=False, relabellings=99, seed=seed)
    p_values = {
        f"{score.metric}, {score.null.kind}": score.null.p for score in closed.scores + drawn.scores if score.null
    }
    within = align(*pair, ["mutual_knn"], intervals=False, within=np.arange(300) % 5, relabellings=99, seed=seed)
    return p_values | {"mutual_knn, relabelled within classes": within["mutual_knn"].null.p}  # type: ignore[union-attr]


def normal_600(seed: int) -> dict[str, tuple[float, float, float]]:
    return population_intervals(normal, 600, seed)


def clustered_600(seed: int) -> dict[str, tuple[float, float, float]]:
    return population_intervals(clustered, 600, seed)


def use_one_thread() -> None:
    """Limit torch to one thread; every process runs on one core."""
    torch.set_num_threads(1)


def main() -> None:
    """Run the simulations, print the table and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=1000, help="number of replications (default: 1000)")
    parser.add_argument("--out", type=Path, help="write the record to this JSON file")
    arguments = parser.parse_args()
    count, rows, console = arguments.replications, [], Console()
    with ProcessPoolExecutor(initializer=use_one_thread) as pool:

        def replicate(simulate: Callable[[int], dict[str, Any]], name: str) -> dict[str, list[Any]]:
            results = list(
                track(pool.map(simulate, range(count), chunksize=10), name, count, console=console, transient=True)
            )
            return {key: [result[key] for result in results] for key in results[0]}

        for simulate, name in (
            (sample_intervals, "rows of a set"),
            (normal_600, "normal, n = 600"),
            (clustered_600, "clusters, n = 600"),
        ):
            for kind, triples in replicate(simulate, name).items():
                low, value, high = np.array(triples).T
                truth = value.mean()
                covered = float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean())
                least = 0.95 if kind.startswith("confidence sequence") else None
                half_width = float((high - low).mean() / 2)
                rows.append(_row(f"{kind} ({name})", covered, 0.95, count, least=least, half_width=half_width))
        for kind, p in replicate(null_p_values, "nulls").items():
            rows.append(_row(f"p <= 0.05: {kind}", float(np.mean(np.array(p) <= 0.05)), 0.05, count))
    table = Table(title=f"{count:,} replications")
    for column in ("quantity", "share", "expected", "half-width", ""):
        table.add_column(column)
    for row in rows:
        half = "" if row["half_width"] is None else f"{row['half_width']:.4f}"
        verdict = "" if row["holds"] else "[red]no[/red]"
        table.add_row(*[row["what"], f"{row['share']:.3f}", row["wanted"], half, verdict])
    console.print(table)
    if arguments.out:
        record = {"provenance": provenance.collect(), "replications": count, "rows": rows}
        write_atomically(arguments.out, lambda path: path.write_text(json.dumps(record, indent=1)))
        console.print(f"record: {arguments.out}")


def _row(
    name: str, share: float, level: float, count: int, *, least: float | None = None, half_width: float | None = None
) -> dict[str, Any]:
    """Return a row of the record and its verdict.

    A share holds if it is at least ``least``, where that is given, and otherwise if it is within 2 points of the level,
    or within 2.6 standard errors of ``count`` replications where that is more.
    """
    doubt = max(0.02, 2.6 * math.sqrt(level * (1 - level) / count))
    holds = share >= least if least is not None else abs(share - level) <= doubt
    wanted = f"at least {least}" if least is not None else f"{level - doubt:.3f} to {level + doubt:.3f}"
    return {"what": name, "share": share, "wanted": wanted, "holds": bool(holds), "half_width": half_width}


if __name__ == "__main__":
    main()
