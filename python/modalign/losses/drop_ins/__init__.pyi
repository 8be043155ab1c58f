from .info_nce_pytorch import InfoNCE as InfoNCE
from .info_nce_pytorch import info_nce as info_nce
from .lightly import NTXentLoss as NTXentLoss
from .open_clip import ClipLoss as ClipLoss
from .open_clip import SigLipLoss as SigLipLoss
from .sentence_transformers import MultipleNegativesRankingLoss as MultipleNegativesRankingLoss
from .torch_proposal import info_nce_loss as info_nce_loss

__all__: list[str]
