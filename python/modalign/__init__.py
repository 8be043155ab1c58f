"""modalign: measure whether aligning two modalities helps.

info_nce, InfoNCE               the contrastive loss, without the similarity matrix
chunked_forward                 a large batch through an encoder in the memory of a small one
knn, neighbor_overlap           exact k-NN graphs and what two of them share
mutual_knn, cka, unbiased_cka   alignment of two representations
data                            paired data sets: synthetic with exact information, emoji
explain, doctor                 which backend runs, and why not another
"""

from modalign import data
from modalign.chunked import chunked_forward
from modalign.diagnosis import doctor, explain
from modalign.functional import Neighbors, info_nce, knn, neighbor_overlap
from modalign.losses import InfoNCE
from modalign.metrics import cka, mutual_knn, unbiased_cka

__version__ = "0.1.0"

__all__ = [
    "InfoNCE",
    "Neighbors",
    "chunked_forward",
    "cka",
    "data",
    "doctor",
    "explain",
    "info_nce",
    "knn",
    "mutual_knn",
    "neighbor_overlap",
    "unbiased_cka",
]
