"""Scores of a sample of the items, whose neighbours are searched among all items."""

from __future__ import annotations

from collections.abc import Sequence

from modalign.alignment.items import Items
from modalign.alignment.results import Score
from modalign.alignment.sampling import sampled_scores
from modalign.alignment.scoring import Record
from modalign.alignment.settings import Settings

__all__ = ["sample_scores"]


def sample_scores(items: Items, settings: Settings, record: Record, names: Sequence[str]) -> dict[str, Score]:
    """Return the scores of metrics that need "lists"; their intervals are for the scores of all n items."""
    if not names:
        return {}
    with record.timed("sample"):
        estimates = sampled_scores(items.x, items.y, names, settings=settings, groups=items.groups)
    if settings.null != "none":
        chance = items.chance_of_mutual_knn(settings.k)
        record.note(f"no null for a sample; the mean of mutual k-NN by chance is {chance:.2g}")
    seconds = record.cost["sample"] / len(names)
    return {
        name: Score(
            metric=name,
            value=estimate.value,
            low=estimate.low if settings.intervals else None,
            high=estimate.high if settings.intervals else None,
            interval="these items" if settings.intervals else "none",
            null=None,
            rows=estimate.sample,
            seconds=seconds,
        )
        for name, estimate in estimates.items()
    }
