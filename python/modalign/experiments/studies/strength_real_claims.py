"""The paper's statements on real data beside the sweep that the study left: what alignment did to each modality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modalign.experiments.studies.claims import Claim
from modalign.experiments.studies.measured import trend
from modalign.experiments.studies.strength_claims import (
    MEASURES,
    Curves,
    curves_of,
    falls,
    rises,
    rises_then_falls,
)
from modalign.experiments.sweep.results import read
from modalign.files.paths import expanded

__all__ = ["claims"]


def _inverted_u(curves: Curves, text: str) -> Claim:
    return rises_then_falls(curves, text, best=(0.5, 1.0))


# modality, the shape of its accuracy, and the statement; of the generator's synergy the paper says nothing
STATEMENTS: dict[str, tuple[tuple[int, Callable[[Curves, str], Claim], str], ...]] = {
    "mosei": (
        (1, rises, "MOSEI: accuracy of vision rises"),
        (2, _inverted_u, "MOSEI: accuracy of text has an inverted U, best strength about 0.75"),
    ),
    "av_mnist": ((1, falls, "AV-MNIST: accuracy of vision falls"),),
    "sarcasm": (
        (1, rises, "MUStARD: accuracy of vision rises (54 to 62 %)"),
        (2, rises, "MUStARD: accuracy of audio rises (58 to 66 %)"),
    ),
    "synergy": (),
}


def claims(folder: Path, dataset: str) -> list[Claim]:
    """Return the paper's statements on a data set beside the numbers of the sweep in ``folder``."""
    results = read(expanded(folder) / "sweep")
    shapes = [
        shape(curves_of(results, results.cases[0], modality), text) for modality, shape, text in STATEMENTS[dataset]
    ]
    alignment = [
        Claim.measured(
            "alignment",
            f"{name} rises with strength",
            "sign",
            trend(results.strengths, results.grid(results.cases[0], name), over="strengths"),
        )
        for name in MEASURES
    ]
    return [*shapes, *alignment]
