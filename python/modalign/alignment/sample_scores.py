"""Scores of a sample of the items, whose neighbours are searched among all items."""

from __future__ import annotations

from collections.abc import Sequence

from modalign.alignment.graph_facts import record_ties
from modalign.alignment.items import Items
from modalign.alignment.results import Chance, Score
from modalign.alignment.sampling import CHANCE_DRAWS, sample_estimates
from modalign.alignment.scoring import Record
from modalign.alignment.settings import Settings
from modalign.metrics.registry import METRICS

__all__ = ["sample_scores"]


def sample_scores(items: Items, settings: Settings, record: Record, names: Sequence[str]) -> dict[str, Score]:
    """Return the scores of metrics that need "lists"; their intervals are for the scores of all n items."""
    if not names:
        return {}
    with record.timed("sample"):
        draws = 0 if settings.null == "none" else CHANCE_DRAWS
        sample = sample_estimates(items.x, items.y, names, settings=settings, groups=items.groups, draws=draws)
    if sample.tied is not None:
        record_ties(record, sample.tied, sample.effects)
    best = {name: METRICS[name].best for name in names} | {name: tied.best for name, tied in sample.effects.items()}
    chances = {name: Chance(mean, draws) for name, mean in sample.chances.items()}
    if settings.null != "none":
        chances["mutual_knn"] = Chance(items.chance_of_mutual_knn(settings.k), 0)
        record.note(
            f"no null for {', '.join(names)} of a sample: these stand beside their means by chance, without a p-value"
        )
    seconds = record.cost["sample"] / len(names)
    return {
        name: Score(
            metric=name,
            value=estimate.value,
            low=estimate.low if settings.intervals else None,
            high=estimate.high if settings.intervals else None,
            interval="these items" if settings.intervals else "none",
            null=None,
            chance=chances.get(name),
            best=best[name],
            rows=estimate.sample,
            seconds=seconds,
        )
        for name, estimate in sample.estimates.items()
    }
