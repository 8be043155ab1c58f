"""Unimodal encoders: small networks that turn a batch of one modality into ``dim`` features a row.

    mlp           any numeric input, flattened               (n, ...)            -> (n, dim)
    cnn           images, uint8 or float                     (n, channels, h, w) -> (n, dim)
    vit           images, uint8 or float, in patches         (n, channels, h, w) -> (n, dim)
    sequence      a Transformer over steps of features       (n, length, d)      -> (n, dim)
    transformer   token ids, 0 is padding                    (n, length) int64   -> (n, dim)
    bag           token ids, mean of embeddings              (n, length) int64   -> (n, dim)
    frozen        the input as it is, flattened              (n, ...)            -> (n, features)
    module        what a function of yours returns           (n, ...)            -> (n, dim)

None of them holds buffers, draws random numbers or mixes rows, so copies of one can be stacked and called at once.
uint8 inputs are pixels and are mapped to [-1, 1]. An encoder ends in a linear layer: no non-linearity after it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator
from torch import Tensor, nn

from modalign.encoders.networks import CNN, MLP, Bag, Features, SequenceTransformer, Transformer, VisionTransformer
from modalign.encoders.user_modules import made_by, require_usable

__all__ = [
    "CNN",
    "MLP",
    "Bag",
    "EncoderConfig",
    "SequenceTransformer",
    "Transformer",
    "VisionTransformer",
    "build_encoder",
    "is_frozen",
    "seeded_module",
    "width_of",
]

_GENERATOR = threading.RLock()  # a user's function may build one of these encoders
Module = TypeVar("Module", bound=nn.Module)

Size = Annotated[int, Field(strict=True, ge=1, le=65536)]
Depth = Annotated[int, Field(strict=True, ge=1, le=10)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MLPConfig(_Config):
    """``depth`` linear layers, LeakyReLU between them: depth 1 is linear, depth 2 has one hidden layer."""

    kind: Literal["mlp"]
    width: Size = 32
    depth: Depth = 2
    dim: Size = 32


class CNNConfig(_Config):
    """``depth`` stages that halve the image: width, 2 width, 4 width ... channels, then the mean over positions."""

    kind: Literal["cnn"]
    width: Size = 16
    depth: Annotated[int, Field(strict=True, ge=1, le=5)] = 3
    dim: Size = 32


class TransformerConfig(_Config):
    """``depth`` pre-norm blocks of ``heads`` attention heads, then the mean over tokens that are not padding."""

    kind: Literal["transformer"]
    width: Size = 32
    depth: Depth = 2
    heads: Size = 2
    dim: Size = 32


class SequenceConfig(_Config):
    """``depth`` pre-norm blocks over steps of features; a step of zeros is padding, on whichever side it stands.

    ``width``: null takes the features as they are, a number puts a linear layer before the blocks. ``pooling``: the
    ``mean`` over the steps that are not padding, or ``cls``, a learned step put before them.
    """

    kind: Literal["sequence"]
    width: Size | None = None
    depth: Depth = 2
    heads: Size = 1
    pooling: Literal["cls", "mean"] = "mean"
    dim: Size = 32


class ViTConfig(_Config):
    """``depth`` pre-norm blocks over the ``patch`` x ``patch`` pieces of an image; ``pooling`` as of ``sequence``."""

    kind: Literal["vit"]
    patch: Size = 4
    width: Size = 32
    depth: Depth = 2
    heads: Size = 2
    pooling: Literal["cls", "mean"] = "mean"
    dim: Size = 32


class BagConfig(_Config):
    """The mean embedding of the tokens that are not padding, then an MLP of ``depth`` linear layers."""

    kind: Literal["bag"]
    width: Size = 32
    depth: Depth = 2
    dim: Size = 32


class FrozenConfig(_Config):
    """Nothing is trained; heads and projections see the features. ``dim`` is their number; null: as they come."""

    kind: Literal["frozen"]
    dim: Size | None = None


class ModuleConfig(_Config):
    """The module that ``make``, ``package.module:function``, returns for (example, **arguments): (n, ...) -> (n, dim).

    ``example``: every row of the modality. ``frozen``: it is called in eval mode and not trained.
    """

    kind: Literal["module"]
    make: str
    arguments: dict[str, JsonValue] = {}
    dim: Size
    frozen: Annotated[bool, Field(strict=True)] = False

    @field_validator("make")
    @classmethod
    def _names_a_function(cls, make: str) -> str:
        place, _, function = make.partition(":")
        if not all(part.isidentifier() for part in (*place.split("."), *function.split("."))):
            raise ValueError("should be package.module:function, the function that makes the module")
        return make


EncoderConfig = Annotated[
    MLPConfig | CNNConfig | ViTConfig | SequenceConfig | TransformerConfig | BagConfig | FrozenConfig | ModuleConfig,
    Field(discriminator="kind"),
]


def is_frozen(config: EncoderConfig) -> bool:
    """Whether nothing of the encoder is trained."""
    return isinstance(config, FrozenConfig) or (isinstance(config, ModuleConfig) and config.frozen)


def width_of(config: EncoderConfig, example: Tensor) -> int:
    """How many features a row the encoder gives for inputs like ``example``.

    Examples:
        >>> import torch
        >>> from modalign.encoders import FrozenConfig, width_of
        >>> width_of(FrozenConfig(kind="frozen"), torch.zeros(5, 3, 2))
        6
    """
    return config.dim if config.dim is not None else example[0].numel()


def build_encoder(config: EncoderConfig, example: Tensor, seed: int | None = None) -> nn.Module:
    """The encoder ``config`` describes, for inputs like ``example``.

    example: (n, ...) rows of the modality. Only its shape is read, and for token ids its largest value, which sets
    the size of the vocabulary: give every row that the encoder will see.
    seed: initial weights are a function of it alone and torch's global generator is left as it was; None draws from
    the global generator.
    Raises ValueError for an input the kind of encoder cannot take, and for a module of the user's that cannot be used.

    Examples:
        >>> import torch
        >>> from modalign.encoders import MLPConfig, build_encoder
        >>> build_encoder(MLPConfig(kind="mlp", dim=8), torch.zeros(5, 3), seed=0)(torch.ones(5, 3)).shape
        torch.Size([5, 8])
    """
    if example.ndim < 2 or example.numel() == 0:
        raise ValueError(f"{config.kind} encoder: the input must be (n, ...) and not empty, got {tuple(example.shape)}")
    return seeded_module(_maker(config, example), seed)


def _maker(config: EncoderConfig, example: Tensor) -> Callable[[], nn.Module]:
    """What makes the encoder, once the example is known to fit."""
    shape = tuple(example.shape)
    match config:
        case MLPConfig():
            return lambda: MLP(example[0].numel(), config.width, config.depth, config.dim)
        case CNNConfig():
            _require_images(config.kind, example, 2**config.depth, f"depth {config.depth}")
            return lambda: CNN(shape[1], config.width, config.depth, config.dim)
        case ViTConfig():
            _require_images(config.kind, example, config.patch, f"patch {config.patch}")
            if shape[2] % config.patch or shape[3] % config.patch:
                raise ValueError(
                    f"vit encoder: patch must divide the sides of the images, got {config.patch} and "
                    f"{shape[2]} x {shape[3]}"
                )
            _require_heads(config.kind, config.heads, config.width)
            return lambda: VisionTransformer(
                shape[1], (shape[2], shape[3]), config.patch, config.width, config.depth, config.heads, config.dim,
                config.pooling,
            )  # fmt: skip
        case SequenceConfig():
            if len(shape) != 3 or not example.is_floating_point():
                raise ValueError(
                    f"sequence encoder: the input must be steps of features (n, length, d) float, zeros for padding, "
                    f"got {shape} {example.dtype}; use transformer for token ids, mlp for features"
                )
            _require_heads(config.kind, config.heads, shape[2] if config.width is None else config.width)
            return lambda: SequenceTransformer(
                shape[2], shape[1], config.width, config.depth, config.heads, config.dim, config.pooling
            )
        case FrozenConfig():
            if config.dim is not None and config.dim != example[0].numel():
                raise ValueError(
                    f"frozen encoder: dim must be the number of features, {example[0].numel()}, or null, "
                    f"got {config.dim}"
                )
            return Features
        case ModuleConfig():
            return _users_maker(config, example)
    if len(shape) != 2 or example.dtype != torch.int64 or bool((example < 0).any()):
        raise ValueError(
            f"{config.kind} encoder: the input must be token ids (n, length) int64, 0 for padding, "
            f"got {shape} {example.dtype}; use mlp for features"
        )
    vocabulary = int(example.max()) + 1
    if isinstance(config, BagConfig):
        return lambda: Bag(vocabulary, config.width, config.depth, config.dim)
    _require_heads(config.kind, config.heads, config.width)
    return lambda: Transformer(vocabulary, shape[1], config.width, config.depth, config.heads, config.dim)


def _users_maker(config: ModuleConfig, example: Tensor) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module = made_by(config.make, config.arguments, example)
        return module.eval().requires_grad_(False) if config.frozen else module.train()

    def first() -> nn.Module:
        return seeded_module(make, 0)

    require_usable(first, config.make, config.arguments, example, config.dim, config.frozen)
    return make


def _require_images(kind: str, example: Tensor, side: int, why: str) -> None:
    if example.ndim != 4 or min(example.shape[2:]) < side:
        raise ValueError(
            f"{kind} encoder: the input must be images (n, channels, height, width) of at least {side} "
            f"pixels a side for {why}, got {tuple(example.shape)}; use mlp for features"
        )


def _require_heads(kind: str, heads: int, width: int) -> None:
    if width % heads:
        raise ValueError(f"{kind} encoder: heads must divide width, got {heads} and {width}")


def seeded_module(make: Callable[[], Module], seed: int | None) -> Module:
    """``make()`` with weights drawn from ``seed`` alone; torch's global generator is left as it was."""
    if seed is None:
        return make()
    # modules draw from the global generator: one thread at a time, or two would share a sequence
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
