"""The claims of the vision-language study: the paper's numbers beside ours, from the tables that the study left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modalign.experiments.studies.claims import Claim, bootstrap, pearson, spearman_of_points
from modalign.files.paths import expanded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PAPER", "WORDS", "claims", "highest", "notes"]

ENOUGH = 5  # the smallest number of models for a correlation with their performance

PAPER: dict[str, Any] = {
    # the highest alignment of all pairs of models at U = 10 and 100 %, and Spearman's correlation with U
    "ends": {10: 0.159, 100: 0.062},
    "chance": 10 / 1023,  # of 10 neighbours among 1,024 pairs
    "uniqueness": -0.950,
    # Pearson's correlation of alignment with - bits per byte over language models
    "performance": {10: 0.852, 50: 0.900, 90: 0.612},
}
WORDS = {"deleted": "words deleted", "replaced": "words replaced"}


def claims(folder: Path) -> list[Claim]:
    """Return the paper's claims beside the numbers of the tables in ``folder``, by the rules of ``claims.py``."""
    top = highest(folder)
    results: list[Claim] = []
    halved, left = {}, {}
    low, high = PAPER["ends"]
    for kind, rows in top.groupby("kind"):
        # the paper's captions begin at 10 %
        points = sorted(value for value in rows["uniqueness"].unique() if value >= low)
        if len(points) > 2:
            grid = rows[rows["uniqueness"].isin(points)].pivot(index="seed", columns="uniqueness", values="mutual_knn")
            text = f"the highest alignment falls with uniqueness, {WORDS[str(kind)]}"
            ours = spearman_of_points(points, grid.to_numpy())
            results.append(Claim.measured("uniqueness", text, "strong", paper=PAPER["uniqueness"], ours=ours))
        ends = rows[rows["uniqueness"].isin([low, high])].groupby("uniqueness")["mutual_knn"].mean()
        if len(ends) == 2:
            halved[kind] = (ends.loc[low], ends.loc[high])
            last = rows[rows["uniqueness"] == high]
            left[kind] = (last["mutual_knn"] - last["chance"]).mean()
    if halved:
        numbers = ", ".join(f"{a:.3f} to {b:.3f} {kind}" for kind, (a, b) in halved.items())
        text = f"it falls by half or more from U = 10 to 100 % (paper 0.159 to 0.062; here {numbers})"
        results.append(Claim("ends", text, "holds", value=float(np.mean([b <= a / 2 for a, b in halved.values()]))))
        over = PAPER["ends"][high] - PAPER["chance"]
        numbers = ", ".join(f"{value:.3f} {kind}" for kind, value in left.items())
        text = (
            f"some is left at U = 100 %: half as much over chance as in the paper ({over:.3f}) or more (here {numbers})"
        )
        results.append(
            Claim("ends", text, "holds", value=float(np.mean([value >= over / 2 for value in left.values()])))
        )
    return [*results, *_performance_claims(expanded(folder))]


def highest(folder: Path) -> pd.DataFrame:
    """Return the most aligned pair of encoders, with its chance, for each kind of change, uniqueness and seed."""
    import pandas as pd

    table = pd.read_parquet(expanded(folder) / "alignment.parquet")
    best: pd.DataFrame = table.loc[table.groupby(["kind", "uniqueness", "seed"])["mutual_knn"].idxmax()]
    return best


def _models(folder: Path) -> pd.DataFrame:
    """Return the language models whose performance is known."""
    import pandas as pd

    models: pd.DataFrame = pd.read_parquet(folder / "models.parquet").dropna(subset=["bits_per_byte"])
    return models


def _performance_claims(folder: Path) -> list[Claim]:
    import pandas as pd

    models = _models(folder)
    if len(models) < ENOUGH:
        return []
    table = pd.read_parquet(folder / "alignment.parquet").merge(models, on="encoder")
    results: list[Claim] = []
    for uniqueness, paper in PAPER["performance"].items():
        rows = table[table["uniqueness"] == uniqueness]
        if len(rows):
            by_seed = rows.groupby(["encoder", "kind", "seed"])[["mutual_knn", "bits_per_byte"]]
            each = by_seed.agg({"mutual_knn": "max", "bits_per_byte": "first"}).groupby("encoder").mean()
            points = np.stack([each["mutual_knn"], -each["bits_per_byte"]], 1)
            text = f"alignment goes with - bits per byte over {len(each)} language models, U = {uniqueness} %"
            results.append(Claim.measured("performance", text, "strong", paper=paper, ours=bootstrap(points, _pearson)))
    return results


def _pearson(points: NDArray[np.float64]) -> float:
    """Return Pearson's correlation of the two columns of points (n, 2)."""
    return pearson(points[:, 0], points[:, 1])


def notes(folder: Path) -> list[str]:
    """Return what the study cannot say, and why."""
    models = _models(folder)
    if len(models) >= ENOUGH:
        return []
    known = ", ".join(f"{row.encoder} {row.bits_per_byte:.2f}" for row in models.itertuples())
    return [
        f"No correlation of alignment with performance: it needs {ENOUGH} causal language models or more, got "
        f"{len(models)}{f' ({known} bits per byte)' if known else ''}. Name more by --encoder transformers:FOLDER."
    ]
