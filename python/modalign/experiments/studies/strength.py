"""The study of what alignment of a chosen strength does to unimodal encoders: Fang et al. 2026 (arXiv:2511.12121).

1. the strength sweep at redundancy R = 0, 2, 4, 6, 8 of the synthetic data, which every seed draws anew
2. sensitivity: the same with other label budgets, widths, temperatures and a projection head, one at a time
3. real pairs from redundant to unique, with their information decomposition
4. the thesis across all of them: the more redundant, the stronger the best alignment

    run(QUICK, folder)      some ten minutes on two cores
    run(FULL, folder)       65,536 pairs, the paper's grid of strengths, 10 seeds
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modalign.common.progress import Reporter
from modalign.data import TRAIN, PairedDataset
from modalign.data import load as load_data
from modalign.experiments.studies import strength_real
from modalign.experiments.studies.claims import records
from modalign.experiments.studies.registry import StudyOptions
from modalign.experiments.studies.strength_claims import claims, folder_of
from modalign.experiments.studies.study import Study
from modalign.experiments.sweep.config import load, parse
from modalign.experiments.sweep.draws import EACH
from modalign.experiments.sweep.runner import run as run_sweep
from modalign.information import Information, pid

__all__ = ["FULL", "QUICK", "Plan", "claims", "information_of", "run"]

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sweeps of the study, as mappings that ``config.parse`` takes; those of sensitivity by name."""

    strength: Mapping[str, Any]
    pairs: Mapping[str, Any]
    sensitivity: Mapping[str, Mapping[str, Any]]


def _plan(n: int, strengths: list[float] | None, real: list[float] | None, seeds: int | None) -> Plan:
    strength, pairs = (load(CONFIGS / f"{name}.yaml").model_dump(mode="json") for name in ("align", "pairs"))
    for case in strength["cases"]:
        case["data"]["n"] = n
    for sweep, grid in ((strength, strengths), (pairs, real)):
        sweep["strengths"] = grid or sweep["strengths"]
        sweep["seeds"] = seeds or sweep["seeds"]
    ends = [case for case in strength["cases"] if case["label"] in ("R = 0", "R = 4", "R = 8")]
    base = {**strength, "cases": ends, "strengths": [0, 0.3, 1, 4], "seeds": seeds or 6}

    def changed(**training: Any) -> dict[str, Any]:
        return {**base, "training": {**base["training"], **training}}

    def wide(width: int) -> dict[str, Any]:
        return {**base, "encoders": [{**encoder, "width": width, "dim": width} for encoder in base["encoders"]]}

    return Plan(
        strength,
        pairs,
        {
            "300 labels": changed(labels=300),
            "all labels": changed(labels=None),
            "width 24": wide(24),
            "width 48": wide(48),
            "temperature 0.5": changed(temperature=0.5),
            "projection head": {**base, "projection": {"kind": "separate", "dim": 12}},
        },
    )


QUICK = _plan(20000, None, None, None)
FULL = _plan(65536, [i / 5 for i in range(11)], [i / 10 for i in range(41)], 10)


def reproduce(options: StudyOptions) -> None:
    """Run the study as ``modalign reproduce align`` does."""
    if options.data is not None:
        strength_real.reproduce(options)
        return
    for name, value in (("--dataset", options.dataset), ("--device", options.device)):
        if value is not None:
            raise ValueError(f"reproduce align takes {name} beside --data, the real data or synergy, which is missing")
    if options.protocol == "paper":
        raise ValueError(
            "reproduce align --protocol paper is for real data: give --data; --full has the paper's strengths on "
            "synthetic data"
        )
    plan = FULL if options.full else QUICK
    run(plan, options.folder, fresh=options.fresh, reporter=options.reporter, workers=options.workers)


def run(
    plan: Plan,
    folder: Path,
    *,
    fresh: bool = False,
    reporter: Reporter | None = None,
    workers: int | None = None,
) -> Path:
    """Run every sweep of ``plan`` in its own folder, and write best.parquet and claims.json into ``folder``.

    A folder that holds a part of the same study is continued. Raises ValueError for a folder with something else in it.
    """
    sweeps = {"strength": plan.strength, "pairs": plan.pairs, **plan.sensitivity}
    settings = {"study": "align", **dataclasses.asdict(plan)}
    study = Study(folder, settings, sweeps=[folder_of(name) for name in sweeps], fresh=fresh)
    reporter = reporter or Reporter("none")
    with study.begun():
        for name, content in sweeps.items():
            sweep = parse({**content, "name": name}, name)
            run_sweep(sweep, study.path / folder_of(name), reporter=reporter, workers=workers)
        rows = []
        for name in sweeps:
            setting = name if name not in ("strength", "pairs") else "default"
            rows += _best(study.path / folder_of(name), "pairs" if name == "pairs" else "synthetic", setting)
        study.write_table("best.parquet", rows)
        study.write_json("claims.json", records(claims(study.path)))
    return study.path


def information_of(data: PairedDataset, seed: int = 0) -> Information:
    """Return the information in bits: exact where the distribution is known, else estimated from training pairs."""
    if data.information is not None:
        return data.information
    part = data.part(TRAIN)
    x, y, labels = (values[part.has_label()] for values in (part.x, part.y, part.labels))
    return pid(x.flatten(1).numpy(), y.flatten(1).numpy(), labels.numpy(), seed=seed).information


def _mean_information(data: Mapping[str, Any], seeds: Sequence[int]) -> Information:
    """Return the information of a case, the mean over its draws where every seed of the runs draws its own data."""
    settings = {name: value for name, value in data.items() if name != "information"}
    name = settings.pop("name")
    each = settings.get("seed") == EACH
    draws = [load_data(name, **settings | ({"seed": seed} if each else {})) for seed in (seeds if each else [0])]
    found = [dataclasses.asdict(information_of(pairs)) for pairs in draws]
    return Information(**{part: sum(one[part] for one in found) / len(found) for part in found[0]})


def _best(folder: Path, kind: str, setting: str) -> list[dict[str, Any]]:
    """Return the best strength, its gain and the information, for each case and modality of a finished sweep."""
    from modalign.experiments.sweep.findings import findings
    from modalign.experiments.sweep.results import read

    results = read(folder)
    known: dict[str, Information] = {}
    if setting == "default":
        for case in results.config["cases"]:
            known[case["label"]] = _mean_information(case["data"], results.seeds)
    rows = []
    for found in findings(results):
        validation = results.grid(found.case, f"validation_accuracy_{found.modality}")
        low, high = found.best_range or (math.nan, math.nan)
        parts = dataclasses.asdict(known[found.case.label]) if found.case.label in known else {}
        rows.append(
            {
                "kind": kind,
                "setting": setting,
                "case": found.case.label,
                "modality": found.modality,
                "name": found.name,
                "best": found.best,
                "best_low": low,
                "best_high": high,
                "best_by_seed": [results.strengths[int(row.argmax())] for row in validation],
                "gain": found.gain.mean,
                "gain_low": found.gain.low,
                "gain_high": found.gain.high,
                "end": found.end.mean,
                "end_low": found.end.low,
                "end_high": found.end.high,
                "strongest": found.strongest,
                "trend": found.trend,
                **parts,
            }
        )
    return rows
