"""The claims of the vision-language study: the paper's numbers beside ours, from the tables that the study left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modalign.experiments.studies.changes import beside_the_paper
from modalign.experiments.studies.claims import Claim, every
from modalign.experiments.studies.measured import mean_over_draws, pooled_correlation, pooled_trend, trend
from modalign.files.paths import expanded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PAPER", "WORDS", "claims", "highest", "notes"]

ENOUGH = 5  # the smallest number of models for a correlation with their performance

PAPER: dict[str, Any] = {
    # the highest alignment of all pairs of models at U = 10 and 100 %
    "ends": {10: 0.159, 100: 0.062},
    "pairs": 1024,
    "chance": 10 / 1023,  # of 10 neighbours among these pairs
    # Spearman's correlation with U of the highest alignment, which falls strictly, and of the alignment of all pairs of
    # models, the mean over vision models
    "uniqueness": -1.0,
    "all pairs": -0.950,
    # Spearman's correlation of alignment with - bits per byte over language models, the mean over vision models
    "performance": {10: 0.852, 50: 0.900, 90: 0.612},
}
WORDS = {"deleted": "words deleted", "replaced": "words replaced", "given": "captions as given"}


def claims(folder: Path) -> list[Claim]:
    """Return the paper's claims beside the numbers of the tables in ``folder``, by the rules of ``claims.py``."""
    import pandas as pd

    table = pd.read_parquet(expanded(folder) / "alignment.parquet")
    top = highest(folder)
    found = [*_uniqueness_claims(top, table), *_ends_claims(top), *_performance_claims(folder)]
    return beside_the_paper(found, folder, lambda claim: {"k", "pairs", "layers"} | ({claim.source} & {"uniqueness"}))


def _uniqueness_claims(top: pd.DataFrame, table: pd.DataFrame) -> list[Claim]:
    first = min(PAPER["ends"])  # the paper's captions begin at 10 %
    results = []
    for kind, rows in top[top["uniqueness"] >= first].groupby("kind"):
        grid = rows.pivot(index="seed", columns="uniqueness", values="mutual_knn")
        if grid.shape[1] > 2:
            text = f"the highest alignment falls with uniqueness, {WORDS[str(kind)]}"
            ours = trend(list(grid.columns), grid.to_numpy(), over="values of uniqueness")
            results.append(Claim.measured("uniqueness", text, "strong", ours, paper=PAPER["uniqueness"]))
    for kind, rows in table[table["uniqueness"] >= first].groupby("kind"):
        values = _by_model(rows, ["seed"])
        if values.shape[2] > 1 and values.shape[3] > 2:
            text = f"alignment of all pairs of models falls with uniqueness, {WORDS[str(kind)]}"
            levels = sorted(rows["uniqueness"].unique())
            ours = pooled_trend(levels, values, over="values of uniqueness", units="text encoders")
            results.append(Claim.measured("uniqueness", text, "strong", ours, paper=PAPER["all pairs"]))
    return results


def _ends_claims(top: pd.DataFrame) -> list[Claim]:
    first, last = PAPER["ends"]
    over = PAPER["ends"][last] - PAPER["chance"]
    falls, left = [], []
    for kind, rows in top.groupby("kind"):
        grid = rows.pivot(index="seed", columns="uniqueness", values="mutual_knn")
        if {first, last} <= set(grid.columns):
            ends = [grid[u].to_numpy() for u in (first, last)]
            text = f"{ends[0].mean():.3f} to {ends[1].mean():.3f} {kind}"
            paper = PAPER["ends"][last] / PAPER["ends"][first]
            ours = mean_over_draws(ends[1] / ends[0])
            falls.append(Claim.measured("ends", text, "below", ours, paper=paper, bound=0.5))
            ours = mean_over_draws((rows["mutual_knn"] - rows["chance"])[rows["uniqueness"] == last].to_numpy())
            text = f"{round(ours.value, 3) + 0.0:.3f} {kind}"  # no minus before a zero
            left.append(Claim.measured("ends", text, "above", ours, paper=over, bound=over / 2))
    if not falls:
        return []
    designs = [f"every {len(falls)} {what} {falls[0].design}" for what in ("falls", "left")]
    text = "it falls by half or more from U = 10 to 100 %"
    remains = f"some is left at U = 100 %, {over / 2:.3f} over chance or more"
    return [every("ends", text, falls, design=designs[0]), every("ends", remains, left, design=designs[1])]


def _by_model(rows: pd.DataFrame, first: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return mutual k-NN, means over what is left out, as (*first, vision models, text encoders, uniqueness)."""
    axes = [*first, "images", "encoder", "uniqueness"]
    means = rows.groupby(axes)["mutual_knn"].mean()
    values: NDArray[np.float64] = means.sort_index().to_numpy(np.float64)
    return values.reshape([rows[name].nunique() for name in axes])


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

    models = _models(expanded(folder))
    if len(models) < ENOUGH:
        return []
    table = pd.read_parquet(expanded(folder) / "alignment.parquet")
    table = table[table["encoder"].isin(models["encoder"])]
    every = models.set_index("encoder")["bits_per_byte"].sort_index()
    results: list[Claim] = []
    for uniqueness, paper in PAPER["performance"].items():
        rows = table[table["uniqueness"] == uniqueness]
        if len(rows):
            # of the captions at this uniqueness, where they were measured
            measured = rows.groupby("encoder")["bits_per_byte"].mean() if "bits_per_byte" in rows else every
            bits = measured.sort_index().to_numpy(np.float64)
            alignment = _by_model(rows).transpose(0, 2, 1)
            ours = pooled_correlation(-bits, alignment, ranks=True, over="language models")
            text = f"alignment goes with - bits per byte over {len(models)} language models, U = {uniqueness} %"
            results.append(Claim.measured("performance", text, "strong", ours, paper=paper))
    return results


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
