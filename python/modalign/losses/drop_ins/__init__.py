"""Contrastive losses under the signatures of other libraries, without the similarity matrix that the originals store.

Each loss takes the arguments of the library it is named after and returns its value and gradients, so that changing an
import is enough. What a loss cannot do without the matrix it refuses when it is made.

    open_clip               ClipLoss and SigLipLoss
    sentence_transformers   MultipleNegativesRankingLoss
    lightly                 NTXentLoss
    info_nce_pytorch        info_nce and InfoNCE
    torch_proposal          info_nce_loss, as proposed for torch.nn.functional
    columns                 the columns of a batch in as few calls of the model as sentence-transformers makes
    rows                    checks and sums over rows that these losses share
    own_pairs               losses of the pairs of one rank among the rows of all ranks

One file a library; the libraries themselves are never imported. The tests compare each loss with values that its
library computed. Losses of our own design belong in ``modalign.losses``.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
