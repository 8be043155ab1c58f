"""Every suite by its name."""

from benchmarks.cases import info_nce_cases, other_loss_cases
from benchmarks.knn_cases import knn_cases, mutual_knn_cases

CASES = {
    "info_nce": info_nce_cases,
    "other_losses": other_loss_cases,
    "knn": knn_cases,
    "mutual_knn": mutual_knn_cases,
}
