"""The claims of the study of strengths: the paper's statements beside the sweeps that the study left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modalign.experiments.gaussian_process import position
from modalign.experiments.studies.claims import Claim, every
from modalign.experiments.studies.measured import Measured, mean_over_draws, pooled_correlation, trend
from modalign.experiments.studies.repetition import ERROR, REPETITIONS, Source, smallest_gap
from modalign.experiments.sweep.results import Case, Results, read
from modalign.experiments.sweep.statistics import best_column, best_column_range
from modalign.files.paths import expanded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MEASURES", "Curves", "claims", "falls", "folder_of", "gains_and_loses", "rises", "rises_then_falls"]

MEASURES = ("cka", "svcca", "mutual_knn")
Array = NDArray[np.float64]
HIGHEST = 2.0  # the paper's strengths end there
POINT = 0.01  # of accuracy: a smaller change says nothing against a rise or a fall
BEST = (0.25, 0.75)  # the paper's best strength at R = 4 is 0.4 to 0.6; 0.3 and 0.6 are our nearest
KNOWN = 0.02  # bits of information about the label from which its redundant share is known


@dataclass(frozen=True)
class Curves:
    """Accuracies (draws, strengths) against the strengths, the first of which is the baseline.

    A strength is chosen for each draw by the validation accuracies of the other draws, so that a gain does not rest on
    the luck of the runs that were chosen.
    """

    strengths: tuple[float, ...]
    validation: Array
    test: Array

    def up_to(self, highest: float) -> Curves:
        """Return the curves without the strengths above ``highest``."""
        kept = [i for i, strength in enumerate(self.strengths) if strength <= highest]
        return Curves(tuple(self.strengths[i] for i in kept), self.validation[:, kept], self.test[:, kept])

    @property
    def chosen(self) -> NDArray[np.intp]:
        """(draws,) the column with the best validation accuracy of the other draws."""
        others = self.validation.sum(0) - self.validation
        columns: NDArray[np.intp] = others.round(12).argmax(1)
        return columns

    @property
    def gain(self) -> Measured:
        """The change of test accuracy from the baseline to the chosen strength."""
        # the draws choose for each other, which makes an interval of 90 % wrong in 7 % at its lower end
        return self._mean(self._at(self.chosen) - self.test[:, 0], error=0.025)

    @property
    def end(self) -> Measured:
        """The change from the baseline to the strongest."""
        return self._mean(self.test[:, -1] - self.test[:, 0])

    @property
    def drop(self) -> Measured:
        """The change from the chosen strength to the strongest."""
        return self._mean(self.test[:, -1] - self._at(self.chosen))

    @property
    def best(self) -> Measured:
        """The strength with the best validation accuracy, with its bootstrap range over the draws."""
        value = self.strengths[best_column(self.validation)]
        draws = len(self.validation)
        ends = best_column_range(self.validation) if draws >= REPETITIONS else None
        low, high = (self.strengths[end] for end in ends or (0, -1))
        source = Source("seeds", "repeated", draws, low=low, high=high)
        return Measured(value, low, high, design=f"best {self.shape}", correlation=False, sources=(source,))

    @property
    def shape(self) -> str:
        """The number of draws and strengths, as designs name it."""
        return "x".join(map(str, self.test.shape))

    def _at(self, columns: NDArray[np.intp]) -> Array:
        values: Array = self.test[np.arange(len(columns)), columns]
        return values

    def _mean(self, changes: Array, error: float = ERROR) -> Measured:
        # every draw may choose the baseline, whose gain is 0: what accuracies can differ by says how sure that is
        return mean_over_draws(changes, error=error, resolution=smallest_gap(self.test))


def falls(curves: Curves, text: str) -> Claim:
    """Return the claim that accuracy falls: less at the strongest, and no gain of a point before."""
    gain, end = curves.gain, curves.end
    parts = [
        Claim.measured("shapes", f"{_points(end)} at {curves.strengths[-1]:g}", "below", end),
        Claim.measured("shapes", f"{_points(gain)} at the chosen strength", "below", gain, bound=POINT),
    ]
    return every("shapes", text, parts, design=f"falls {curves.shape}")


def rises(curves: Curves, text: str) -> Claim:
    """Return the claim that accuracy rises: a gain at the chosen strength, and no loss of a point at the strongest."""
    gain, end = curves.gain, curves.end
    parts = [
        Claim.measured("shapes", f"{_points(gain)} at the chosen strength", "above", gain),
        Claim.measured("shapes", f"{_points(end)} at {curves.strengths[-1]:g}", "above", end, bound=-POINT),
    ]
    return every("shapes", text, parts, design=f"rises {curves.shape}")


def rises_then_falls(curves: Curves, text: str, best: tuple[float, float] = BEST) -> Claim:
    """Return the claim that accuracy has an inverted U with its best strength in ``best``."""
    gain, drop, chosen = curves.gain, curves.drop, curves.best
    low, high = best
    parts = [
        Claim.measured("shapes", f"{_points(gain)} at the chosen strength", "above", gain),
        Claim.measured("shapes", f"{_points(drop)} from there to {curves.strengths[-1]:g}", "below", drop),
        Claim.measured("shapes", f"best strength {chosen.value:g}", "above", chosen, bound=low),
        Claim.measured("shapes", f"best strength {chosen.value:g}", "below", chosen, bound=high),
    ]
    return every("shapes", text, parts, design=f"rises then falls {curves.shape}")


def gains_and_loses(redundant: Curves, unique: Curves, text: str) -> Claim:
    """Return the claim that accuracy gains where information is redundant and falls where it is unique."""
    gain, end = redundant.gain, unique.end
    parts = [
        Claim.measured("sensitivity", f"R = 8 {_points(gain)} at the chosen strength", "above", gain),
        Claim.measured("sensitivity", f"R = 0 {_points(end)} at {unique.strengths[-1]:g}", "below", end),
    ]
    return every("sensitivity", text, parts, design=f"gains and loses {unique.shape}")


def claims(folder: Path) -> list[Claim]:
    """Return the paper's claims beside the numbers of the sweeps in ``folder``."""
    import pandas as pd

    folder = expanded(folder)
    table = pd.read_parquet(folder / "best.parquet")
    synthetic = read(folder / "strength")
    redundancies = [float(case.label.removeprefix("R = ")) for case in synthetic.cases]
    return [
        *_shape_claims(synthetic),
        _thesis(synthetic, redundancies),
        *_alignment_claims(synthetic),
        *_pair_claims(table[table["setting"] == "default"]),
        *_sensitivity_claims(folder, list(table["setting"].unique())),
    ]


def _shape_claims(results: Results) -> list[Claim]:
    shapes = {
        "R = 0": (falls, "falls"),
        "R = 2": (falls, "falls"),
        "R = 4": (rises_then_falls, "has an inverted U, best strength 0.4 to 0.6"),
        "R = 6": (rises, "rises"),
        "R = 8": (rises, "rises"),
    }
    claims = []
    for case in results.cases:
        claim, words = shapes[case.label]
        for modality in (2, 1):  # the one behind the transform first
            curves = curves_of(results, case, modality).up_to(HIGHEST)
            claims.append(claim(curves, f"{case.label}: accuracy of modality {modality} {words}"))
    return claims


def _thesis(results: Results, redundancies: Sequence[float]) -> Claim:
    best = np.stack([_best_of_draws(curves_of(results, case, 2)) for case in results.cases], 1)
    text = "the best strength grows with redundancy (synthetic, modality 2)"
    return Claim.measured("thesis", text, "sign", trend(redundancies, best, over="redundancies"))


def _alignment_claims(results: Results) -> list[Claim]:
    claims = []
    for name in MEASURES:
        parts = [
            Claim.measured(
                "alignment", case.label, "sign", trend(results.strengths, results.grid(case, name), over="strengths")
            )
            for case in results.cases
        ]
        text, design = f"{name} rises with strength at every R", f"every {len(parts)} {parts[0].design}"
        claims.append(every("alignment", text, parts, design=design))
    return claims


def _pair_claims(table: pd.DataFrame) -> list[Claim]:
    """Return the claims on the redundant share of the information of pairs, whose two modalities are one point."""
    known = table[table["mutual_12"] > KNOWN]
    claims = []
    for rows, text in (
        (known[known["kind"] == "pairs"], "the best strength grows with redundancy (real pairs, both modalities)"),
        (known, "the best strength grows with the redundant share of the information (all pairs)"),
    ):
        keyed = rows.assign(share=rows["redundancy"] / rows["mutual_12"]).pivot(
            index="modality", columns=["kind", "case"], values=["share", "best"]
        )
        share, best = (keyed[name].to_numpy(np.float64) for name in ("share", "best"))
        if share.shape[1] > 2:
            ours = pooled_correlation(share, best, ranks=True, over="pairs of modalities")
            claims.append(Claim.measured("thesis", text, "sign", ours))
    return claims


def _sensitivity_claims(folder: Path, settings: Sequence[str]) -> list[Claim]:
    claims = []
    for setting in settings:
        if setting == "default":
            continue
        results = read(folder / folder_of(setting))
        cases = {case.label: case for case in results.cases}
        redundant, unique = (curves_of(results, cases[label], 2) for label in ("R = 8", "R = 0"))
        text = f"{setting}: modality 2 gains at R = 8 and loses at R = 0"
        claims.append(gains_and_loses(redundant, unique, text))
    return claims


def curves_of(results: Results, case: Case, modality: int) -> Curves:
    validation, test = (results.grid(case, f"{kind}_{modality}") for kind in ("validation_accuracy", "accuracy"))
    return Curves(results.strengths, validation, test)


def _best_of_draws(curves: Curves) -> Array:
    """Return asinh of the best strength of each draw (draws,), which steps evenly near 0 and far from it."""
    places = np.array([position(strength) for strength in curves.strengths])
    best: Array = places[curves.validation.round(12).argmax(1)]
    return best


def _points(change: Measured) -> str:
    return f"{100 * change.value:+.1f} points"


def folder_of(sweep: str) -> str:
    """Return the name of the folder of a sweep of the study."""
    return sweep.replace(" ", "-").replace(".", "_")
