"""modalign: measure whether aligning two modalities helps.

info_nce, nt_xent, sigmoid_loss   contrastive losses without the similarity matrix
InfoNCE, NTXent, SigmoidLoss      the same as modules
drop_ins                          the same under the signatures of other libraries
chunked_forward                   a large batch through an encoder in the memory of a small one
knn, neighbor_overlap             exact k-NN graphs and what two of them share
mutual_knn, cka, unbiased_cka     alignment of two representations
data                              paired data sets: synthetic with exact information, emoji
explain, doctor                   which backend runs, and why not another
"""

from modalign import data
from modalign.chunked import chunked_forward
from modalign.contrastive import Stats, info_nce, nt_xent, sigmoid_loss
from modalign.diagnosis import doctor, explain
from modalign.graph import Certificate, Neighbors
from modalign.losses import InfoNCE, NTXent, SigmoidLoss
from modalign.metrics import cka, mutual_knn, unbiased_cka
from modalign.neighbors import knn, neighbor_overlap

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "InfoNCE",
    "NTXent",
    "Neighbors",
    "SigmoidLoss",
    "Stats",
    "chunked_forward",
    "cka",
    "data",
    "doctor",
    "explain",
    "info_nce",
    "knn",
    "mutual_knn",
    "neighbor_overlap",
    "nt_xent",
    "sigmoid_loss",
    "unbiased_cka",
]
