# The public names, each from the room that defines it; modalign/__init__.py loads them lazily from this list.
from . import alignment as alignment
from . import data as data
from . import encoders as encoders
from . import information as information
from . import losses as losses
from . import metrics as metrics
from . import neighbors as neighbors
from .alignment.functional import align as align
from .alignment.layers import align_layers as align_layers
from .alignment.results import Alignment as Alignment
from .alignment.results import LayerAlignment as LayerAlignment
from .alignment.results import Score as Score
from .alignment.results import load_alignment as load_alignment
from .diagnosis import doctor as doctor
from .diagnosis import explain as explain
from .losses.chunked import chunked_forward as chunked_forward
from .losses.functional import Stats as Stats
from .losses.functional import info_nce as info_nce
from .losses.functional import nt_xent as nt_xent
from .losses.functional import sigmoid_loss as sigmoid_loss
from .losses.gathering import gather as gather
from .losses.modules import InfoNCE as InfoNCE
from .losses.modules import NTXent as NTXent
from .losses.modules import SigmoidLoss as SigmoidLoss
from .metrics.linear import cka as cka
from .metrics.linear import unbiased_cka as unbiased_cka
from .metrics.neighborhoods import mutual_knn as mutual_knn
from .neighbors.functional import knn as knn
from .neighbors.functional import neighbor_overlap as neighbor_overlap
from .neighbors.graph import Certificate as Certificate
from .neighbors.graph import Neighbors as Neighbors

__version__: str
__all__: list[str]
