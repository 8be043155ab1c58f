"""The claims of the emergence study: the paper's numbers beside ours, from the tables that the study left."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modalign.experiments.studies.changes import beside_the_paper
from modalign.experiments.studies.claims import Claim, every
from modalign.experiments.studies.layer_pairs import MEASURES, highest_defined
from modalign.experiments.studies.measured import (
    grid_correlation,
    mean_over_draws,
    median_correlation,
    spearman,
    trend,
)
from modalign.files.paths import expanded

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PAPER",
    "Levels",
    "best_of_layers",
    "claims",
    "claims_of",
    "correlations",
    "defining",
    "ends_claim",
    "levels_of",
    "protocol_of",
    "published_statistics",
]

FEATURES = 8  # features of the label
# the paper's points at U = 8 are zeros that its script never filled in
LAST = 7
# settings of data, training and encoders define every number
DEFINING = {
    *("n", "variant", "nonlinearity", "temperatures", "growth", "depths_1", "depths_2", "compared"),
    *("epochs_1", "epochs_2", "batch_size", "clip", "tuning", "trials", "learning_rates", "weight_decays"),
}
PAPER: dict[str, Any] = {
    # alignment against uniqueness up to 7, Spearman, by heterogeneity (unbiased CKA): the paper's -.950, -.833, -.983,
    # -.983 and -1.000 without the zero at 8
    "uniqueness": {1: -0.929, 3: -0.762, 5: -0.976, 7: -0.976, 9: -1.000},
    # the highest alignment at the ends, by its figures 4 and 6
    "ends": {0: 0.9, 8: 0.01},
    # alignment against heterogeneity, by uniqueness
    "heterogeneity": {
        "unbiased_cka": {0: -0.915, 2: -0.709, 4: -0.442, 6: -0.770},
        "mutual_knn": {0: -0.939, 2: -0.648, 4: -0.309, 6: -0.588},
        "svcca": {0: -0.673, 2: -0.782, 4: -0.624, 6: -0.576},
    },
    # median Spearman of alignment and performance over depth
    "performance": {0: 0.68, 4: 0.27, 7: 0.0},
    "depth": {0: 0.93, 6: 0.0},
    # the least median over U of the correlation of performance and depth
    "deeper": 0.5,
}


@dataclasses.dataclass(frozen=True)
class Levels:
    """The table of the study: the levels of its factors, and values (seeds, uniqueness, heterogeneity, depths).

    values: the alignment of the best layers by measure, and under "accuracy" the accuracy of encoder 2.
    """

    uniqueness: tuple[int, ...]
    heterogeneity: tuple[int, ...]
    depths: tuple[int, ...]
    values: Mapping[str, NDArray[np.float64]]


def claims(folder: Path) -> list[Claim]:
    """Return the paper's claims beside the numbers of the tables in ``folder``, by the rules of ``claims.py``."""
    folder = expanded(folder)
    found = claims_of(levels_of(best_of_layers(folder)), paper=protocol_of(folder) == "paper")
    return beside_the_paper(found, folder, lambda claim: defining(claim.source, claim.text))


def defining(source: str, text: str) -> set[str]:
    """Return the settings that define the number of a claim or statistic, from its part of the paper and its text."""
    factors = {"uniqueness", "heterogeneity"} & {source}
    if source in ("correlations", "heat-map") or text.startswith("from "):  # over heterogeneities
        factors.add("heterogeneity")
    if "every U" in text:
        factors.add("uniqueness")
    return DEFINING | factors | ({"k"} if "mutual_knn" in text else set())


def protocol_of(folder: Path) -> str:
    """Return the protocol that the study in a folder followed."""
    record = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return str(record["settings"].get("protocol", "default"))


def levels_of(table: pd.DataFrame) -> Levels:
    """Return the rows of ``best_of_layers`` as arrays."""
    keys = ["seed", "uniqueness", "heterogeneity", "depth_2"]
    axes = [sorted(table[key].unique()) for key in keys]
    ordered = table.set_index(keys).sort_index()
    shape = [len(axis) for axis in axes]
    values = {name: ordered[name].to_numpy(np.float64).reshape(shape) for name in (*MEASURES, "accuracy")}
    uniqueness, heterogeneity, depths = (tuple(int(value) for value in axis) for axis in axes[1:])
    return Levels(uniqueness, heterogeneity, depths, values)


def claims_of(levels: Levels, *, paper: bool = True) -> list[Claim]:
    """Return the claims beside the numbers of a table.

    paper: whether the table follows the paper's protocol. By the default protocol mutual k-NN is of other pairs, whose
    chance is another, and SVCCA is exact, so that the paper's numbers do not mean the same and are left out.
    """
    return [
        *_against_uniqueness(levels),
        *_against_heterogeneity(levels, () if paper else ("mutual_knn", "svcca")),
        *_correlation_claims(levels),
        *_heat_map(levels),
    ]


def _against_uniqueness(levels: Levels) -> list[Claim]:
    claims = []
    highest = levels.values["unbiased_cka"].max(3)
    kept = [i for i, u in enumerate(levels.uniqueness) if u <= LAST]
    if len(kept) > 2:
        for j, d in enumerate(levels.heterogeneity):
            ours = trend([levels.uniqueness[i] for i in kept], highest[:, kept, j], over="values of uniqueness")
            text, paper = f"alignment falls with uniqueness up to {LAST}, heterogeneity {d}", PAPER["uniqueness"].get(d)
            rule = "sign" if paper is None else "strong"
            claims.append(Claim.measured("uniqueness", text, rule, ours, paper=paper, side=-1))
    if {0, FEATURES} <= set(levels.uniqueness):
        claims.append(ends_claim(*(highest[:, levels.uniqueness.index(u)] for u in (0, FEATURES))))
    return claims


def ends_claim(first: NDArray[np.float64], last: NDArray[np.float64]) -> Claim:
    """Return the claim on the highest alignment at U = 0 and 8, each (seeds, heterogeneity)."""
    ours = [mean_over_draws(values, units="heterogeneities") for values in (first, last)]
    text = f"from above 0.5 at U = 0 to below 0.1 at U = 8: from {ours[0].value:.2f} to {ours[1].value:.2f} here"
    parts = [
        Claim.measured("uniqueness", "above 0.5 at U = 0", "above", ours[0], paper=PAPER["ends"][0], bound=0.5),
        Claim.measured("uniqueness", "below 0.1 at U = 8", "below", ours[1], paper=PAPER["ends"][8], bound=0.1),
    ]
    return every("uniqueness", text, parts, design=f"ends {ours[0].design}")


def _against_heterogeneity(levels: Levels, apart: Sequence[str]) -> list[Claim]:
    """Return the claims on heterogeneity; measures ``apart`` carry no number of the paper."""
    claims = []
    if len(levels.heterogeneity) > 2:
        for name, numbers in PAPER["heterogeneity"].items():
            for u, paper in numbers.items():
                if u in levels.uniqueness:
                    values = levels.values[name][:, levels.uniqueness.index(u)].max(2)
                    text = f"alignment ({name}) falls with heterogeneity, U = {u}"
                    ours = trend(levels.heterogeneity, values, over="heterogeneities")
                    if name in apart:
                        claims.append(Claim.measured("heterogeneity", text, "sign", ours, side=-1))
                    else:
                        claims.append(Claim.measured("heterogeneity", text, "strong", ours, paper=paper))
    return claims


def _correlation_claims(levels: Levels) -> list[Claim]:
    claims = []
    if len(levels.depths) < 3:
        return []
    depths = np.asarray(levels.depths, np.float64)

    def at(name: str, u: int) -> NDArray[np.float64]:
        values: NDArray[np.float64] = levels.values[name][:, levels.uniqueness.index(u)]
        return values

    for which, text in (("performance", "alignment goes with performance"), ("depth", "alignment grows with depth")):
        for u, paper in PAPER[which].items():
            if u in levels.uniqueness:
                side = at("accuracy", u) if which == "performance" else depths
                rule = "none" if paper == 0 else "strong"
                words = text if paper else text.replace("goes", "no longer goes").replace("grows", "no longer grows")
                ours = median_correlation(side, at("unbiased_cka", u), over="depths", units="heterogeneities")
                claims.append(Claim.measured("correlations", f"{words}, U = {u}", rule, ours, paper=paper))
    parts = []
    for u in levels.uniqueness:
        ours = median_correlation(depths, at("accuracy", u), over="depths", units="heterogeneities")
        parts.append(Claim.measured("correlations", f"U = {u}", "strong", ours, paper=PAPER["deeper"]))
    design = f"every {len(parts)} {parts[0].design}"
    claims.append(every("correlations", "performance grows with depth at every U", parts, design=design))
    return claims


def _heat_map(levels: Levels) -> list[Claim]:
    if 0 not in levels.uniqueness or min(len(levels.depths), len(levels.heterogeneity)) < 3:
        return []
    values = levels.values["unbiased_cka"][:, levels.uniqueness.index(0)].transpose(0, 2, 1)
    ours = grid_correlation(levels.depths, levels.heterogeneity, values, names=("depths", "heterogeneities"))
    text = "at U = 0 alignment is high where depth exceeds heterogeneity"
    return [Claim.measured("heat-map", text, "sign", ours)]


def best_of_layers(folder: Path, *, levels: bool = False) -> Any:
    """Return the alignment of every pair of encoders: the highest of all pairs of layers, for each measure.

    levels: whether to return every level of information, by its temperature, and not the first alone.
    """
    import pandas as pd

    table = pd.read_parquet(folder / "alignment.parquet")
    if "temperature" not in table:
        table["temperature"] = 0.05
    if not levels:
        table = table[table["temperature"] == table["temperature"].min()]
    keys = ["temperature", "uniqueness", "heterogeneity", "seed", "depth_1", "depth_2"]
    best = table.groupby(keys).agg({**dict.fromkeys(MEASURES, highest_defined), "accuracy": "first"}).reset_index()
    # the protocol of one fixed encoder: the shallowest of modality 1
    return best[best["depth_1"] == best["depth_1"].min()]


def published_statistics(table: pd.DataFrame) -> list[tuple[str, str, float, float]]:
    """Return statistics exactly as the published code takes them, without intervals.

    Each has its part of the paper, as ``Claim.source`` has it, its name, ours and the paper's.

    The highest alignment is that of all seeds and depths, and correlations with performance pool the seeds of a
    heterogeneity. The verdicts rest on statistics seed by seed, whose rules were simulated.
    """
    top = table.groupby(["uniqueness", "heterogeneity"])[[*MEASURES]].max().reset_index()
    rows = []
    for d, paper in PAPER["uniqueness"].items():
        curve = top[(top["heterogeneity"] == d) & (top["uniqueness"] <= LAST)]
        if len(curve) > 2:
            name = f"rho of unbiased CKA and U, heterogeneity {d}"
            rows.append(("uniqueness", name, _rho(curve, "uniqueness"), paper))
    for name, numbers in PAPER["heterogeneity"].items():
        for u, paper in numbers.items():
            curve = top[top["uniqueness"] == u]
            if len(curve) > 2:
                text = f"rho of {name} and heterogeneity, U = {u}"
                rows.append(("heterogeneity", text, _rho(curve, "heterogeneity", name), paper))
    for u, paper in PAPER["performance"].items():
        pools = [pool for _, pool in table[table["uniqueness"] == u].groupby("heterogeneity")]
        if pools and len(pools[0]) > 2:
            median = float(np.median([_rho(pool, "accuracy") for pool in pools]))
            rows.append(("correlations", f"median rho of unbiased CKA and accuracy, U = {u}", median, paper))
    return rows


def _rho(rows: pd.DataFrame, x: str, y: str = "unbiased_cka") -> float:
    return spearman(rows[x].to_numpy(np.float64), rows[y].to_numpy(np.float64))


def correlations(table: Any, one: str, two: str, uniqueness: int) -> NDArray[np.float64]:
    """Return Spearman's correlations over the depths of encoder 2, for every heterogeneity and seed at a uniqueness."""
    mine = table[table["uniqueness"] == uniqueness]
    groups = [group for _, group in mine.groupby(["heterogeneity", "seed"]) if len(group) > 2]
    return np.array([spearman(group[one], group[two]) for group in groups])
