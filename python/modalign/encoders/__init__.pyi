from .build import CNN as CNN
from .build import MLP as MLP
from .build import Bag as Bag
from .build import EncoderConfig as EncoderConfig
from .build import FrozenConfig as FrozenConfig
from .build import MLPConfig as MLPConfig
from .build import SequenceTransformer as SequenceTransformer
from .build import Transformer as Transformer
from .build import VisionTransformer as VisionTransformer
from .build import build_encoder as build_encoder
from .build import is_frozen as is_frozen
from .build import seeded_module as seeded_module
from .build import width_of as width_of
from .embedding import embed as embed

__all__: list[str]
