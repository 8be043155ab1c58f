from .functional import DEFAULT_METRICS as DEFAULT_METRICS
from .functional import align as align
from .layers import align_layers as align_layers
from .preparation import prepare as prepare
from .preparation import prepare_layers as prepare_layers
from .results import Alignment as Alignment
from .results import LayerAlignment as LayerAlignment
from .results import Score as Score
from .results import load_alignment as load_alignment

__all__: list[str]
