"""What a sweep shows for one modality of one case: the numbers behind a sentence of conclusion."""

from __future__ import annotations

from dataclasses import dataclass

from modalign.experiments.sweep.results import Case, Results
from modalign.experiments.sweep.statistics import Estimate, Trend, best_column, best_column_range, paired_gain, trend

__all__ = ["Finding", "findings"]


@dataclass(frozen=True)
class Finding:
    """Accuracies are fractions; gain, end and drop are paired differences of test accuracy over the seeds.

    ``best`` is the strength whose validation accuracy, averaged over seeds, is highest (the smallest of equals), so
    the test accuracies of ``gain`` played no part in choosing it. ``best_range`` is the 95 % bootstrap range of that
    choice, None for one seed. ``baseline`` is strength 0, or the smallest strength of a sweep without 0.
    """

    case: Case
    modality: int  # 1 or 2
    baseline: float
    best: float
    best_range: tuple[float, float] | None
    strongest: float
    gain: Estimate  # best - baseline
    end: Estimate  # strongest - baseline
    drop: Estimate  # strongest - best
    trend: Trend | None

    @property
    def name(self) -> str:
        return self.case.modalities[self.modality - 1]

    @property
    def gains(self) -> bool:
        return self.best != self.baseline and self.gain.positive


def findings(results: Results) -> list[Finding]:
    """One finding for each case and modality, in the order of the configuration."""
    return [_finding(results, case, modality) for case in results.cases for modality in (1, 2)]


def _finding(results: Results, case: Case, modality: int) -> Finding:
    validation = results.grid(case, f"validation_accuracy_{modality}")
    test = results.grid(case, f"accuracy_{modality}")
    best = best_column(validation)
    chosen = best_column_range(validation)
    gain = paired_gain(test[:, best], test[:, 0])
    end = paired_gain(test[:, -1], test[:, 0])
    drop = paired_gain(test[:, -1], test[:, best])
    return Finding(
        case=case,
        modality=modality,
        baseline=results.strengths[0],
        best=results.strengths[best],
        best_range=chosen and (results.strengths[chosen[0]], results.strengths[chosen[1]]),
        strongest=results.strengths[-1],
        gain=gain,
        end=end,
        drop=drop,
        trend=trend(gain, end, drop),
    )
