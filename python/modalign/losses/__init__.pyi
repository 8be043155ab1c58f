from .chunked import chunked_forward as chunked_forward
from .functional import Stats as Stats
from .functional import info_nce as info_nce
from .functional import nt_xent as nt_xent
from .functional import sigmoid_loss as sigmoid_loss
from .gathering import gather as gather
from .modules import InfoNCE as InfoNCE
from .modules import NTXent as NTXent
from .modules import SigmoidLoss as SigmoidLoss

__all__: list[str]
