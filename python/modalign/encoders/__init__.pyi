from .build import build_encoder as build_encoder
from .build import seeded_module as seeded_module
from .build import width_of as width_of
from .configs import BagConfig as BagConfig
from .configs import CNNConfig as CNNConfig
from .configs import EncoderConfig as EncoderConfig
from .configs import FrozenConfig as FrozenConfig
from .configs import LeakyMLPConfig as LeakyMLPConfig
from .configs import MLPConfig as MLPConfig
from .configs import ModuleConfig as ModuleConfig
from .configs import MultiBenchConfig as MultiBenchConfig
from .configs import SequenceConfig as SequenceConfig
from .configs import TransformerConfig as TransformerConfig
from .configs import ViTConfig as ViTConfig
from .configs import is_frozen as is_frozen
from .embedding import embed as embed
from .networks import CNN as CNN
from .networks import MLP as MLP
from .networks import Bag as Bag
from .networks import SequenceTransformer as SequenceTransformer
from .networks import Transformer as Transformer
from .networks import VisionTransformer as VisionTransformer
from .published import LeakyMLP as LeakyMLP
from .published import MultiBenchTransformer as MultiBenchTransformer

__all__: list[str]
