"""Every metric of the papers' public programs beside ours, on made-up inputs: the cases of docs/parity.md."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch

import modalign
from modalign.alignment.preparation import prepare_layers
from modalign.alignment.relabelling import random_relabellings
from modalign.experiments.sweep.tasks import Score
from modalign.information import pid_of_joint
from modalign.metrics import cmd, lcs_knn, procrustes, rbf_cka, rsa, svcca, svcca_code
from parity_inputs import INPUTS, LABELS, TABLES, Pair

__all__ = ["PROGRAMS", "STEPS", "Case", "relabellings"]

K = 10


# ours


@functools.cache
def aligned(rows: str, prepare: str | None, names: tuple[str, ...]) -> modalign.Alignment:
    return modalign.align(*INPUTS[rows], list(names), K, prepare=prepare, null="none", intervals=False)


OF_ALIGN = (
    "mutual_knn",
    "cycle_knn",
    "edit_distance_knn",
    "cka",
    "unbiased_cka",
    "unbiased_cka_code",
    "clipped_cka",
    "cknna",
    "cknna_code",
    "cmd",
    "centered_cmd",
    "rv",
    "cca",
    "pwcca",
)


def by_align(name: str, rows: str = "unit rows", prepare: str | None = None) -> Callable[[], float]:
    return lambda: aligned(rows, prepare, OF_ALIGN)[name].value


def tied(*, itself: bool = False) -> float:
    x, y = INPUTS["repeated rows"]
    scores = modalign.align(x, x if itself else y, ["mutual_knn"], K, null="none", intervals=False)
    return scores["mutual_knn"].value


def one_less(value: Callable[[], float]) -> Callable[[], float]:
    return lambda: 1 - value()


def longest(rows: str = "unit rows", prepare: str | None = None) -> Callable[[], float]:
    return lambda: lcs_knn(*prepared(rows, prepare), K, normalize=False)


def prepared(rows: str, prepare: str | None) -> Pair:
    x, y = INPUTS[rows]
    return (x, y) if prepare is None else (prepare_layers([x], prepare)[0], prepare_layers([y], prepare)[0])


def ten_components(rows: str, prepare: str | None = None, *, standardize: bool = True) -> Callable[[], float]:
    return lambda: svcca(*prepared(rows, prepare), components=10, standardize=standardize)


def ten_calls(rows: str, prepare: str | None = None) -> Callable[[], float]:
    """Return the mean of SVCCA by a randomised SVD over the seeds that the programs' numbers are of."""
    return lambda: float(np.mean([svcca_code(*prepared(rows, prepare), seed=seed) for seed in range(10)]))


def gaussian(*, sigma: float | None = 1.0, unbiased: bool = True, widths: bool = False) -> Callable[[], float]:
    return lambda: rbf_cka(*INPUTS["unit rows"], sigma=widths_of_medians() if widths else sigma, unbiased=unbiased)


def columns() -> float:
    x, y = INPUTS["equal widths"]
    return 1 - cmd(x.T, y.T)


def best_of_layers(prepare: str, *, concatenated: bool = False) -> float:
    """Return the best mutual k-NN of the layers of "layers", their concatenations too if asked for."""
    sides = [list(np.moveaxis(side, 1, 0)) for side in INPUTS["layers"]]
    if concatenated:
        sides = [prepare_layers(side, f"{prepare}_unnorm") for side in sides]
        sides = [[*side, np.concatenate(side, axis=1)] for side in sides]
        prepare = "unit_rows"
    result = modalign.align_layers(*sides, k=K, prepare=prepare, relabellings=0)
    return result.matrix[result.best[0]][result.best[1]]


def relabellings(n: int) -> torch.Tensor:
    """Return the 200 relabellings that ``align`` draws, which the programs of others are given too."""
    return torch.stack(list(random_relabellings(n, 200, 0)))


def calibrated(name: str) -> float:
    null = modalign.align(*INPUTS["unit rows"], [name], K, null="relabelled", intervals=False)[name].null
    assert null is not None
    return null.calibrated


def calibrated_layers() -> float:
    sides = [list(np.moveaxis(side, 1, 0)) for side in INPUTS["layers"]]
    null = modalign.align_layers(*sides, k=K, prepare="unit_rows", relabellings=200).null
    assert null is not None
    return null.calibrated


def widths_of_medians() -> tuple[float, float]:
    """Return the root of the median squared distance of all n^2 pairs, each row with itself included."""
    widths = []
    for rows in INPUTS["unit rows"]:
        squares = torch.cdist(*[torch.from_numpy(rows)] * 2).square()
        widths.append(float(squares.median().sqrt()))
    return widths[0], widths[1]


def residual_of_rotation() -> float:
    """Return 1 - |X R - Y| / |Y| for the best rotation R, from the score that is scaled by both lengths."""
    x, y = (side - side.mean(0) for side in INPUTS["unit rows"])
    lengths = np.linalg.norm(x), np.linalg.norm(y)
    shared = procrustes(*INPUTS["unit rows"]) * lengths[0] * lengths[1]
    return 1 - float(np.sqrt(lengths[0] ** 2 + lengths[1] ** 2 - 2 * shared) / lengths[1])


def clip_loss(wanted: str) -> float:
    x, y = (torch.from_numpy(side).requires_grad_() for side in INPUTS["equal widths"])
    loss = modalign.info_nce(x, y, temperature=1 / 14.3)
    loss.backward()
    assert x.grad is not None
    return float(loss.detach() if wanted == "value" else x.grad.norm())


def sign_accuracy() -> float:
    labels, predictions = torch.from_numpy(LABELS["five labels"])
    score = Score("regression", 1)
    score.add(predictions[None, :, None], labels)
    return float(score.value())


def part(table: str, name: str) -> Callable[[], float]:
    return lambda: float(getattr(pid_of_joint(TABLES[table]), name))


# the cases


@dataclasses.dataclass(frozen=True)
class Case:
    """A number of a public program, and ours.

    Attributes:
        theirs: The call in the program.
        rows: The input, a key of ``INPUTS`` or ``TABLES``.
        ours: The call here.
        value: Computes ours.
        within: The largest difference, if the two are equal.
        step: For two that differ: the step at which they part, a key of ``STEPS``.
    """

    theirs: str
    rows: str
    ours: str
    value: Callable[[], float]
    within: float = 0.0
    step: str = ""

    @property
    def key(self) -> str:
        """The key in ``tests/parity.json``."""
        return f"{self.theirs} | {self.rows}"


STEPS = {
    "added 1e-6": "The program adds 1e-6 to the denominator of CKA. Ours is the equation.",
    "added 1e-8": "The program adds 1e-8 to the denominator of CKA. Ours is the equation.",
    "ties": "The program takes equally near neighbours in the order of a sort that is not stable, one of many, and the "
    "same order for a representation and itself. Ours is the mean over independent random orders in x and in y.",
    "centring": "The paper centres the kernels and pairs an edge with itself, as ours does; the program does neither.",
    "randomised SVD": "The program finds ten components by `torch.svd_lowrank` with two power iterations. They are not "
    "the leading ones where the spectrum is flat, and its number changes from call to call. `svcca` is exact.",
    "bfloat16": "The program casts clamped rows to bfloat16, which changes neighbours. Ours is of the float32 rows.",
    "float32": "The program takes differences of large sums in float32. Ours are in float64.",
    "concatenation": "The program scores the concatenation of all layers too, which is the best one here; "
    "`align_layers` scores the layers that it is given.",
    "diagonal": "By default the program makes each item its own neighbour. The original program does not, nor ours.",
    "ridge": "The program adds 1e-6 to the variances, in float32 for CCA. Ours is the equation, without a ridge.",
    "weights": "The program weighs a canonical direction by the length of its variable. Morcos et al. 2018 weigh by "
    "its products with the columns, as ours does.",
    "sampled pairs": "The program samples 8,192 of the 19,900 pairs. Ours takes all of them.",
    "width": "The width of the kernel: the program's median counts each row with itself; ours is of pairs of rows.",
    "solver": "The program's solver stops earlier. Ours is bracketed to 1e-7.",
}


def published_svcca(theirs: str, rows: str, prepare: str | None = None) -> list[Case]:
    """Return the cases of an SVCCA by a randomised decomposition."""
    said = "" if prepare is None else f', prepare="{prepare}"'
    return [
        Case(theirs, rows, f"svcca_code{said}, mean of seeds 0 to 9", ten_calls(rows, prepare), 1e-6),
        Case(
            theirs,
            rows,
            f"svcca(components=10, standardize=True){said}",
            ten_components(rows, prepare),
            step="randomised SVD",
        ),
    ]


PLATONIC = [
    Case("mutual_knn", "unit rows", "mutual_knn", by_align("mutual_knn"), 1e-12),
    Case("mutual_knn", "repeated rows", "mutual_knn", tied, step="ties"),
    Case("mutual_knn(x, x)", "repeated rows", "mutual_knn", lambda: tied(itself=True), step="ties"),
    Case("cycle_knn", "unit rows", "cycle_knn", by_align("cycle_knn"), 1e-7),
    Case("lcs_knn", "unit rows", "lcs_knn(normalize=False)", longest(), 1e-6),
    Case("edit_distance_knn", "unit rows", "edit_distance_knn", by_align("edit_distance_knn"), 1e-12),
    Case("cknna", "unit rows", "cknna_code", by_align("cknna_code"), 1e-12),
    Case("cknna", "unit rows", "cknna", by_align("cknna"), step="centring"),
    Case("cka", "unit rows", "cka", by_align("cka"), 1e-7),
    Case("unbiased_cka", "far mean", "unbiased_cka_code", by_align("unbiased_cka_code", "far mean"), 1e-9),
    Case("unbiased_cka", "far mean", "unbiased_cka", by_align("unbiased_cka", "far mean"), step="added 1e-6"),
    Case('cka(kernel_metric="rbf")', "unit rows", "rbf_cka(sigma=1, unbiased=False)", gaussian(unbiased=False), 1e-7),
    Case('unbiased_cka(kernel_metric="rbf")', "unit rows", "rbf_cka(sigma=1)", gaussian(), step="added 1e-6"),
    *(case for rows in ("unit rows", "wide rows", "flat spectrum") for case in published_svcca("svcca", rows)),
    Case(
        "prepare_features, mutual_knn",
        "loud rows",
        'mutual_knn, prepare="platonic"',
        by_align("mutual_knn", "loud rows", "platonic"),
        1e-12,
    ),
    Case(
        "prepare_features, cknna",
        "loud rows",
        'cknna_code, prepare="platonic"',
        by_align("cknna_code", "loud rows", "platonic"),
        1e-6,
    ),
    Case(
        "prepare_features, cka", "loud rows", 'cka, prepare="platonic"', by_align("cka", "loud rows", "platonic"), 1e-6
    ),
    Case(
        "prepare_features, unbiased_cka",
        "loud rows",
        'unbiased_cka_code, prepare="platonic"',
        by_align("unbiased_cka_code", "loud rows", "platonic"),
        1e-6,
    ),
    Case("compute_score", "layers", 'align_layers, prepare="platonic"', lambda: best_of_layers("platonic"), 1e-12),
    Case(
        "compute_score, exact=True",
        "layers",
        'align_layers, prepare="platonic_exact"',
        lambda: best_of_layers("platonic_exact"),
        1e-12,
    ),
    Case(
        "Alignment.score",
        "layers",
        'align_layers, prepare="platonic_exact"',
        lambda: best_of_layers("platonic_exact"),
        step="bfloat16",
    ),
]
UNIQUE = [
    Case(
        "compute_score",
        "layers",
        'align_layers of the layers and their concatenation, "platonic_unnorm"',
        lambda: best_of_layers("platonic", concatenated=True),
        1e-12,
    ),
    Case(
        "compute_score",
        "layers",
        'align_layers, prepare="platonic"',
        lambda: best_of_layers("platonic"),
        step="concatenation",
    ),
    Case("CLIPLoss", "equal widths", "info_nce(temperature=1/14.3)", lambda: clip_loss("value"), 1e-12),
    Case(
        "CLIPLoss, norm of the gradient",
        "equal widths",
        "info_nce(temperature=1/14.3)",
        lambda: clip_loss("gradient"),
        1e-12,
    ),
]


def emergence(q: float) -> list[Case]:
    """Return the cases of ``get_alignment``, which clamps all but the share q and divides rows by their lengths."""
    prepare, keep = ("unit_rows", None) if q == 1 else ("emergence", "emergence_unnorm")
    said, kept = f', prepare="{prepare}"', "" if keep is None else f', prepare="{keep}"'

    def case(theirs: str, ours: str, value: Callable[[], float], within: float = 0.0, step: str = "") -> Case:
        return Case(f"{theirs}, q={q:g}", "loud rows", ours, value, within, step)

    def score(name: str, rows: str | None = prepare) -> Callable[[], float]:
        return by_align(name, "loud rows", rows)

    return [
        case("mutual_knn", f"mutual_knn{said}", score("mutual_knn"), 1e-12),
        case("cycle_knn", f"cycle_knn{said}", score("cycle_knn"), 1e-7),
        case("lcs_knn", f"lcs_knn(normalize=False){said}", longest("loud rows", prepare), 1e-7),
        case("edit_distance_knn", f"edit_distance_knn{said}", score("edit_distance_knn"), 1e-12),
        case("cknna", f"cknna_code{said}", score("cknna_code"), 1e-12),
        case("cka", f"cka{said}", score("cka"), 1e-12),
        case("unbiased_cka", f"clipped_cka{said}", score("clipped_cka"), 1e-12),
        case("cmd", f"1 - cmd{said}", one_less(score("cmd")), 1e-9),
        case("cmd_unnorm", f"1 - cmd{kept}", one_less(score("cmd", keep)), 1e-9),
        case("centered_cmd", f"1 - centered_cmd{said}", one_less(score("centered_cmd")), 1e-9),
        case("centered_cmd_unnorm", f"1 - centered_cmd{kept}", one_less(score("centered_cmd", keep)), 1e-9),
        *published_svcca(f"svcca, q={q:g}", "loud rows", prepare),
    ]


EMERGENCE = [
    *emergence(1),
    *emergence(0.95),
    Case('cmd(contract="batch")', "equal widths", "1 - cmd(x.T, y.T)", columns, 1e-9),
    Case("unbiased_cka", "far mean", "clipped_cka", by_align("clipped_cka", "far mean"), 1e-9),
    Case("eval_affect(exclude_zero=False)", "five labels", "sign accuracy of sweeps", sign_accuracy, 1e-12),
    Case("unbiased_cka in float32", "far mean", "clipped_cka", by_align("clipped_cka", "far mean"), step="float32"),
]
ARISTOTELIAN = [
    Case("mutual_knn", "unit rows", "mutual_knn", by_align("mutual_knn"), 1e-7),
    Case("cycle_knn", "unit rows", "cycle_knn", by_align("cycle_knn"), 1e-7),
    Case("cka_linear", "unit rows", "cka", by_align("cka"), 1e-9),
    Case("cka", "unit rows", "cka", by_align("cka"), 1e-7),
    Case('cka(kernel="rbf")', "unit rows", "rbf_cka(sigma=1, unbiased=False)", gaussian(unbiased=False), 1e-7),
    Case("cka_unbiased", "far mean", "unbiased_cka", by_align("unbiased_cka", "far mean"), step="added 1e-8"),
    Case("cka_rbf", "unit rows", "rbf_cka(sigma=widths, unbiased=False)", gaussian(widths=True, unbiased=False), 1e-7),
    Case("cka_rbf", "unit rows", "rbf_cka(unbiased=False)", gaussian(sigma=None, unbiased=False), step="width"),
    Case("cknna(unbiased=True)", "unit rows", "cknna_code", by_align("cknna_code"), 1e-12),
    Case("cknna", "unit rows", "cknna_code", by_align("cknna_code"), step="diagonal"),
    Case("cca", "unit rows", "cca", by_align("cca"), step="ridge"),
    Case("svcca", "unit rows", "svcca(components=10)", ten_components("unit rows", standardize=False), step="ridge"),
    Case("pwcca", "unit rows", "pwcca", by_align("pwcca"), step="weights"),
    Case("rv_coefficient", "unit rows", "rv", by_align("rv"), 1e-9),
    Case(
        "rsa",
        "unit rows",
        'rsa(distance="euclidean")',
        lambda: rsa(*INPUTS["unit rows"], distance="euclidean"),
        step="sampled pairs",
    ),
    Case("procrustes", "unit rows", "1 - |X R - Y| / |Y|, from procrustes", residual_of_rotation, 1e-7),
    Case("calibrate(mutual_knn)", "unit rows", 'mutual_knn, null="relabelled"', lambda: calibrated("mutual_knn"), 1e-6),
    Case("calibrate(cka)", "unit rows", 'cka, null="relabelled"', lambda: calibrated("cka"), 1e-6),
    Case("calibrate_layers(mutual_knn)", "layers", 'align_layers, prepare="unit_rows"', calibrated_layers, 1e-6),
]
PID = [
    Case(f"rus.py: {letter}", table, f"pid_of_joint: {name}", part(table, name), *agreement)
    for table, agreement in (("AND", (1e-5,)), ("XOR", (1e-5,)), ("x1", (1e-5,)), ("20 x 20 codes", (0.0, "solver")))
    for letter, name in (("R", "redundancy"), ("U1", "unique_1"), ("U2", "unique_2"), ("S", "synergy"))
]
PROGRAMS = {
    "minyoungg/platonic-rep": PLATONIC,
    "MeganTj/platonic-rep-unique": UNIQUE,
    "MeganTj/multimodal_alignment": EMERGENCE,
    "mlbio-epfl/Aristotelian": ARISTOTELIAN,
    "pliang279/PID": PID,
}
