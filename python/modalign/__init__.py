"""modalign: measure whether aligning two modalities helps.

info_nce, nt_xent, sigmoid_loss   contrastive losses without the similarity matrix
InfoNCE, NTXent, SigmoidLoss      the same as modules
drop_ins                          the same under the signatures of other libraries
chunked_forward                   a large batch through an encoder in the memory of a small one
gather                            the rows of all processes, with their gradients
knn, neighbor_overlap             exact k-NN graphs and what two of them share
align, align_layers               any metric of two representations, with intervals and nulls
mutual_knn, cka, unbiased_cka ..  the metrics one by one: modalign.metrics
data                              paired data sets: synthetic with exact information, emoji
explain, doctor                   which backend runs, and why not another
"""

from modalign import data
from modalign.alignment.functional import align
from modalign.alignment.layers import align_layers
from modalign.alignment.results import Alignment, LayerAlignment, Score, load_alignment
from modalign.diagnosis import doctor, explain
from modalign.losses.chunked import chunked_forward
from modalign.losses.functional import Stats, info_nce, nt_xent, sigmoid_loss
from modalign.losses.gathering import gather
from modalign.losses.modules import InfoNCE, NTXent, SigmoidLoss
from modalign.metrics import cka, mutual_knn, unbiased_cka
from modalign.neighbors.functional import knn, neighbor_overlap
from modalign.neighbors.graph import Certificate, Neighbors

__version__ = "0.1.0"

__all__ = [
    "Alignment",
    "Certificate",
    "InfoNCE",
    "LayerAlignment",
    "NTXent",
    "Neighbors",
    "Score",
    "SigmoidLoss",
    "Stats",
    "align",
    "align_layers",
    "chunked_forward",
    "cka",
    "data",
    "doctor",
    "explain",
    "gather",
    "info_nce",
    "knn",
    "load_alignment",
    "mutual_knn",
    "neighbor_overlap",
    "nt_xent",
    "sigmoid_loss",
    "unbiased_cka",
]
