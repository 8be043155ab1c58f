"""The suites of benchmarks.compare by name."""

from benchmarks.alignment_cases import alignment_cases
from benchmarks.cases import info_nce_cases, other_loss_cases
from benchmarks.knn_cases import knn_cases
from benchmarks.sweep_cases import sweep_cases

CASES = {
    "info_nce": info_nce_cases,
    "other_losses": other_loss_cases,
    "knn": knn_cases,
    "alignment": alignment_cases,
    "sweeps": sweep_cases,
}
