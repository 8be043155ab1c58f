from .lightly import NTXentLoss as NTXentLoss
from .open_clip import ClipLoss as ClipLoss
from .sentence_transformers import MultipleNegativesRankingLoss as MultipleNegativesRankingLoss
from .torch_proposal import info_nce_loss as info_nce_loss

__all__: list[str]
