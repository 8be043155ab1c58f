"""Findings of a sweep: for each predictor of each case, the best strength and what it gains.

A finding holds the numbers behind one clause of a report's conclusion.
"""

from __future__ import annotations

from dataclasses import dataclass

from modalign.experiments.sweep.results import Case, Predictor, Results
from modalign.experiments.sweep.statistics import Estimate, Trend, best_column, best_column_range, paired_gain, trend

__all__ = ["Finding", "findings"]


@dataclass(frozen=True)
class Finding:
    """Effect of the strength on one predictor: the model of a modality, or the fused model.

    Accuracies are fractions. Gains are paired differences of test accuracy over the seeds.

    Args:
        case: The case.
        predictor: Whose accuracy this is.
        baseline: Strength 0, or the smallest strength of a sweep without 0.
        best: The strength whose validation accuracy, averaged over seeds, is highest (the smallest of equals). The
            test accuracies of ``gain`` play no part in choosing it.
        best_range: The 95 % bootstrap range of ``best``; None for one seed.
        strongest: The largest strength.
        gain: Gain from ``baseline`` to ``best``.
        end: Gain from ``baseline`` to ``strongest``.
        drop: Gain from ``best`` to ``strongest``.
        trend: Shape of accuracy against strength, by the rules of ``statistics.trend``; None for one seed.
    """

    case: Case
    predictor: Predictor
    baseline: float
    best: float
    best_range: tuple[float, float] | None
    strongest: float
    gain: Estimate
    end: Estimate
    drop: Estimate
    trend: Trend | None

    @property
    def name(self) -> str:
        """Name of the modality, or "fused model"."""
        return self.predictor.name

    @property
    def modality(self) -> int:
        """Position of the predictor among those of its case, from 1: a modality's number; the fused model is last."""
        return self.predictor.position

    @property
    def gains(self) -> bool:
        """True if the best strength is not the baseline and the interval of its gain lies above 0."""
        return self.best != self.baseline and self.gain.positive


def findings(results: Results) -> list[Finding]:
    """Return one finding for each case and predictor, in the order of the configuration; the fused model is last."""
    return [_finding(results, case, predictor) for case in results.cases for predictor in case.predictors]


def _finding(results: Results, case: Case, predictor: Predictor) -> Finding:
    validation = results.grid(case, predictor.column("validation_accuracy"))
    test = results.grid(case, predictor.column("accuracy"))
    best = best_column(validation)
    best_range = best_column_range(validation)
    gain = paired_gain(test[:, best], test[:, 0])
    end = paired_gain(test[:, -1], test[:, 0])
    drop = paired_gain(test[:, -1], test[:, best])
    return Finding(
        case=case,
        predictor=predictor,
        baseline=results.strengths[0],
        best=results.strengths[best],
        best_range=best_range and (results.strengths[best_range[0]], results.strengths[best_range[1]]),
        strongest=results.strengths[-1],
        gain=gain,
        end=end,
        drop=drop,
        trend=trend(gain, end, drop),
    )
