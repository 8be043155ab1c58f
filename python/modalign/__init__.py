"""modalign: measure whether aligning two modalities helps.

Losses
    info_nce, nt_xent, sigmoid_loss   contrastive losses that never store the similarity matrix
    InfoNCE, NTXent, SigmoidLoss      the same losses as modules
    losses.drop_ins                   the same losses under the signatures of other libraries
    chunked_forward                   the forward pass of a large batch in the memory of a small one
    gather                            the rows of all processes, with their gradients
Neighbours and alignment
    knn, neighbor_overlap             exact k-NN graphs, and the neighbours that two of them share
    align, align_layers               any metric of two representations, with intervals and null distributions
    mutual_knn, cka, unbiased_cka     three of the metrics; modalign.metrics has all
Data and information
    data                              paired data sets: synthetic with exact information, and real ones
    information                       partial information decomposition of two modalities and a label
Backends
    explain, doctor                   which backend runs a call, and why another does not

Nothing is imported before it is used: ``import modalign`` loads neither torch nor the compiled core.
"""

from modalign.aliases import attach, install
from modalign.common import threads as _threads  # noqa: F401 (before a fork)

__version__ = "0.1.0"

# __init__.pyi lists the public names and where they are defined
__getattr__, __dir__, __all__ = attach(__name__, __file__)
install()
