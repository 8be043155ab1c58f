"""Advice before any training: what alignment may be expected to bring, from embeddings and labels.

The information that two modalities have about the label is estimated, and compared with that of a suite of pairs whose
strengths were swept (``suite.json``, made from ``modalign reproduce align`` by ``python -m benchmarks.suite``). The
advice is the result of the pairs with the nearest information. ``hit_rate`` returns how often such advice would have
been right for the pairs of the suite, each left out in turn.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from modalign.common.checks import LARGEST_SEED, whole_number
from modalign.common.labels import label_array
from modalign.experiments.gaussian_process import SCALE, position
from modalign.information import PIDEstimate, Regime, pid, regime

__all__ = ["Advice", "Expectation", "advise", "hit_rate", "regime_sentence", "suite", "trust"]

NEIGHBOURS = 6  # the number of neighbours in the suite that an expectation is made from


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What to expect for one modality.

    Attributes:
        low, high: the range of strengths worth trying.
        gain, gain_low, gain_high: mean and range, over the neighbours, of the gain of accuracy at the best strength.
        loss: the mean change of accuracy at the strongest strength.
        like: the names of the neighbours in the suite, nearest first.
        near: their rows of the suite.
    """

    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    loss: float
    like: tuple[str, ...]
    near: tuple[Mapping[str, Any], ...] = ()

    @property
    def helps(self) -> bool:
        """Whether a gain of at least half a point is expected."""
        return self.gain >= 0.005


@dataclasses.dataclass(frozen=True)
class Advice:
    """Advice for a pair of modalities.

    Attributes:
        information: the information of both modalities about the label, in bits.
        regime: the regime, or None where the class means share nothing.
        expectations: the expectations for modality 1 and modality 2.
    """

    information: PIDEstimate
    regime: Regime | None
    expectations: tuple[Expectation, Expectation]

    def sentences(self) -> list[str]:
        found = self.information.information
        share = found.redundancy / found.mutual_12 if found.mutual_12 > 0 else 0.0
        said = [
            f"{share:.0%} of what the modalities tell about the label is told by both ({found.redundancy:.2f} of "
            f"{found.mutual_12:.2f} bits); {found.unique_1:.2f} by modality 1 alone, {found.unique_2:.2f} by "
            f"modality 2 alone, {found.synergy:.2f} only by both together."
        ]
        if self.regime is not None:
            said.append(regime_sentence(self.regime))
        for number, one in enumerate(self.expectations, 1):
            verdict = "alignment may help" if one.helps else "little is to be gained"
            said.append(
                f"Modality {number}: {verdict}. Pairs like these ({', '.join(dict.fromkeys(one.like))}) changed by "
                f"{100 * one.gain:+.1f} points (from {_points(one.gain_low)} to {_points(one.gain_high)} among the "
                f"{len(one.like)} nearest modalities) at their best strength, {one.low:g} to {one.high:g}, and by "
                f"{100 * one.loss:+.1f} at the strongest."
            )
        synthetic = sorted({name for one in self.expectations for name in one.like if name.startswith("R = ")})
        if synthetic:
            said[-1] += (
                f" ({', '.join(synthetic)}: synthetic pairs; both modalities see R of the 8 features that make the "
                "label.)"
            )
        return said


def regime_sentence(found: Regime) -> str:
    """Return what a regime says, and that the comparison with the suite does not depend on it."""
    recovers = {
        "both": "both alignment and prediction would recover what they share",
        "align only": "alignment would recover what they share and prediction would not",
        "predict only": "prediction would recover what they share and alignment would not",
        "neither": "neither alignment nor prediction would recover what they share",
    }[found.name]
    return f"In a simple linear model of these data (arXiv:2606.11190) {recovers}; the pairs below were trained."


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:.1f}"


def suite() -> list[dict[str, Any]]:
    """Return a row for each modality of each pair of the suite: information in bits, best strength, gain."""
    rows: list[dict[str, Any]] = json.loads(_file().read_text(encoding="utf-8"))["rows"]
    return rows


def advise(x: Any, y: Any, labels: Any, *, seed: int = 0) -> Advice:
    """Return advice for embeddings x (n, d1), y (n, d2) of the same items and their classes (n,).

    Labels, errors and the seed are those of ``modalign.information.pid``. Takes seconds for thousands of items of a few
    classes, a minute or so for 20 or more.
    """
    seed = whole_number("advise", "seed", seed, least=0, most=LARGEST_SEED)
    labels = label_array("advise: labels", labels)
    information = pid(x, y, labels, seed=seed)
    try:
        found: Regime | None = regime(x, y, labels, seed=seed)
    except ValueError:
        found = None
    parts = dataclasses.asdict(information.information)
    rows = suite()
    return Advice(information, found, (_expected(parts, 1, rows), _expected(parts, 2, rows)))


def hit_rate(rows: Sequence[Mapping[str, Any]] | None = None) -> dict[str, float]:
    """Return how often the advice is right for the pairs of the suite, each left out in turn.

    range: the best strength lies in the suggested range. helps: whether a gain of half a point is expected agrees with
    whether one was found. never: how often "it does not help" would have been right, for comparison. width: the mean
    share of the strengths 0 to 4 (in asinh) that is suggested.
    """
    every = suite() if rows is None else list(rows)
    found: dict[str, list[float]] = {"range": [], "helps": [], "never": [], "width": []}
    for row in every:
        others = [other for other in every if other["case"] != row["case"]]
        expected = _expected(row, row["modality"], others)
        gained = row["gain"] >= 0.005
        found["range"].append(float(expected.low <= row["best"] <= expected.high))
        found["helps"].append(float(expected.helps == gained))
        found["never"].append(float(not gained))
        found["width"].append((position(expected.high) - position(expected.low)) / position(4.0))
    return {name: float(np.mean(values)) for name, values in found.items()}


def trust() -> str:
    """Return a sentence on how far to trust the advice."""
    rates = hit_rate()
    return (
        f"How far to trust this: on the suite, each pair left out in turn, the best strength lay in the range "
        f"{rates['range']:.0%} of the time, and whether alignment helps was right {rates['helps']:.0%} of the time, "
        f"when always saying no is right {rates['never']:.0%}. Only `modalign tune` measures it."
    )


def _expected(parts: Mapping[str, Any], modality: int, rows: Sequence[Mapping[str, Any]]) -> Expectation:
    here = _shares(parts, modality)
    distances = [float(np.abs(_shares(row, row["modality"]) - here).sum()) for row in rows]
    near = [rows[i] for i in np.argsort(distances, kind="stable")[:NEIGHBOURS]]
    best = np.array([position(row["best"]) for row in near])
    gains = np.array([row["gain"] for row in near])
    low, high = (float(f"{SCALE * np.sinh(value):.2g}") for value in (best.min(), best.max()))
    return Expectation(
        low,
        high,
        float(gains.mean()),
        gain_low=float(gains.min()),
        gain_high=float(gains.max()),
        loss=float(np.mean([row["end"] for row in near])),
        like=tuple(row["case"] for row in near),
        near=tuple(near),
    )


def _shares(parts: Mapping[str, Any], modality: int) -> np.ndarray[Any, Any]:
    """Return the shares of the information: redundant, unique to this modality, unique to the other, synergistic."""
    whole = max(float(parts["mutual_12"]), 1e-9)
    names = ("redundancy", f"unique_{modality}", f"unique_{3 - modality}", "synergy")
    return np.array([float(parts[name]) / whole for name in names])


def _file() -> Any:
    return files("modalign.experiments") / "suite.json"
