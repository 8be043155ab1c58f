"""The encoder of a configuration: ``build_encoder`` checks that the inputs fit and draws the weights from a seed.

Each ``prepare_`` function serves one kind of ``configs.ENCODERS``: it checks the example and returns a function that
makes the network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from modalign.common.names import resolve
from modalign.encoders.configs import (
    ENCODERS,
    BagConfig,
    CNNConfig,
    EncoderConfig,
    FrozenConfig,
    LeakyMLPConfig,
    MLPConfig,
    MultiBenchConfig,
    SequenceConfig,
    TransformerConfig,
    ViTConfig,
)
from modalign.encoders.networks import CNN, MLP, Bag, Features, SequenceTransformer, Transformer, VisionTransformer
from modalign.encoders.published import LeakyMLP, MultiBenchTransformer

__all__ = [
    "build_encoder",
    "prepare_bag",
    "prepare_cnn",
    "prepare_frozen",
    "prepare_leaky_mlp",
    "prepare_mlp",
    "prepare_multibench",
    "prepare_sequence",
    "prepare_transformer",
    "prepare_vit",
    "seeded_module",
    "width_of",
]

_GENERATOR = threading.RLock()  # reentrant: a user's function may build one of these encoders
Module = TypeVar("Module", bound=nn.Module)
Maker = Callable[[], nn.Module]


def width_of(config: EncoderConfig, example: Tensor) -> int:
    """Return the number of features a row that the encoder gives for inputs like ``example``.

    Examples:
        >>> import torch
        >>> from modalign.encoders import FrozenConfig, width_of
        >>> width_of(FrozenConfig(kind="frozen"), torch.zeros(5, 3, 2))
        6
    """
    return config.dim if config.dim is not None else example[0].numel()


def build_encoder(config: EncoderConfig, example: Tensor, seed: int | None = None) -> nn.Module:
    """Build the encoder that ``config`` describes, for inputs like ``example``.

    Args:
        config: Configuration of the encoder.
        example: (n, ...) rows of the modality. Only the shape is read, and for token ids the largest value, which
            sets the size of the vocabulary: give every row that the encoder will see. A ``module`` encoder's function
            gets all of it.
        seed: Initial weights are a function of it alone, and torch's global generator is left as it was. None draws
            from the global generator.

    Returns:
        A module that maps (n, ...) to (n, dim).

    Raises:
        ValueError: If this kind of encoder cannot take the input, or a module of the user's cannot be used.

    Examples:
        >>> import torch
        >>> from modalign.encoders import MLPConfig, build_encoder
        >>> build_encoder(MLPConfig(kind="mlp", dim=8), torch.zeros(5, 3), seed=0)(torch.ones(5, 3)).shape
        torch.Size([5, 8])
    """
    if example.ndim < 2 or example.numel() == 0:
        raise ValueError(f"{config.kind} encoder: the input must be (n, ...) and not empty, got {tuple(example.shape)}")
    make: Maker = resolve(ENCODERS[config.kind].maker)(config, example)
    return seeded_module(make, seed)


def seeded_module(make: Callable[[], Module], seed: int | None) -> Module:
    """Return ``make()`` with weights drawn from ``seed`` alone; torch's global generator is left as it was."""
    if seed is None:
        return make()
    # modules draw from the global generator: one thread at a time, or two would share a sequence
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def prepare_mlp(config: MLPConfig, example: Tensor) -> Maker:
    """Return a function that makes an MLP for rows of any shape."""
    return lambda: MLP(example[0].numel(), config.width, config.depth, config.dim)


def prepare_leaky_mlp(config: LeakyMLPConfig, example: Tensor) -> Maker:
    """Return a function that makes the paper's MLP for rows of any shape."""
    return lambda: LeakyMLP(example[0].numel(), config.depth, config.dim)


def prepare_cnn(config: CNNConfig, example: Tensor) -> Maker:
    """Check that the images are large enough and return a function that makes a CNN for them."""
    _require_images("cnn", example, 2**config.depth, f"depth {config.depth}")
    return lambda: CNN(example.shape[1], config.width, config.depth, config.dim)


def prepare_vit(config: ViTConfig, example: Tensor) -> Maker:
    """Check that the patches divide the images and return a function that makes a vision transformer for them."""
    _require_images("vit", example, config.patch, f"patch {config.patch}")
    channels, height, width = example.shape[1:]
    if height % config.patch or width % config.patch:
        raise ValueError(
            f"vit encoder: patch must divide the sides of the images, got {config.patch} and {height} x {width}"
        )
    _require_heads("vit", config.heads, config.width)
    return lambda: VisionTransformer(
        channels=channels,
        sides=(height, width),
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        dim=config.dim,
        pooling=config.pooling,
    )


def prepare_sequence(config: SequenceConfig, example: Tensor) -> Maker:
    """Check that the rows are steps of features and return a function that makes a transformer for them."""
    length, features = _steps_of("sequence", example)
    _require_heads("sequence", config.heads, features if config.width is None else config.width)
    return lambda: SequenceTransformer(
        features=features,
        length=length,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        dim=config.dim,
        pooling=config.pooling,
    )


def prepare_multibench(config: MultiBenchConfig, example: Tensor) -> Maker:
    """Check that the rows are steps of features and return a function that makes the paper's transformer for them."""
    length, features = _steps_of("multibench", example)
    _require_heads("multibench", config.heads, config.dim)
    return lambda: MultiBenchTransformer(
        features=features,
        length=length,
        width=config.dim,
        depth=config.depth,
        heads=config.heads,
        pooling=config.pooling,
        dropout=config.dropout,
        padding=config.padding,
    )


def prepare_transformer(config: TransformerConfig, example: Tensor) -> Maker:
    """Check that the rows are token ids and return a function that makes a transformer for them."""
    _require_tokens("transformer", example)
    _require_heads("transformer", config.heads, config.width)
    vocabulary = int(example.max()) + 1
    return lambda: Transformer(
        vocabulary=vocabulary,
        length=example.shape[1],
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        dim=config.dim,
    )


def prepare_bag(config: BagConfig, example: Tensor) -> Maker:
    """Check that the rows are token ids and return a function that makes a bag of embeddings for them."""
    _require_tokens("bag", example)
    vocabulary = int(example.max()) + 1
    return lambda: Bag(vocabulary, config.width, config.depth, config.dim)


def prepare_frozen(config: FrozenConfig, example: Tensor) -> Maker:
    """Check the number of features and return a function that makes a module which flattens its input."""
    if config.dim is not None and config.dim != example[0].numel():
        raise ValueError(
            f"frozen encoder: dim must be the number of features, {example[0].numel()}, or null, got {config.dim}"
        )
    return Features


def _require_images(kind: str, example: Tensor, side: int, reason: str) -> None:
    if example.ndim != 4 or min(example.shape[2:]) < side:
        raise ValueError(
            f"{kind} encoder: the input must be images (n, channels, height, width) of at least {side} "
            f"pixels a side for {reason}, got {tuple(example.shape)}; use mlp for features"
        )


def _steps_of(kind: str, example: Tensor) -> tuple[int, int]:
    """Return the number of steps of a row and of features of a step; ValueError for other inputs."""
    shape = tuple(example.shape)
    if len(shape) != 3 or not example.is_floating_point():
        raise ValueError(
            f"{kind} encoder: the input must be steps of features (n, length, d) float, zeros for padding, "
            f"got {shape} {example.dtype}; use transformer for token ids, mlp for features"
        )
    return shape[1], shape[2]


def _require_tokens(kind: str, example: Tensor) -> None:
    if example.ndim != 2 or example.dtype != torch.int64 or bool((example < 0).any()):
        raise ValueError(
            f"{kind} encoder: the input must be token ids (n, length) int64, 0 for padding, "
            f"got {tuple(example.shape)} {example.dtype}; use mlp for features"
        )


def _require_heads(kind: str, heads: int, width: int) -> None:
    if width % heads:
        raise ValueError(f"{kind} encoder: heads must divide width, got {heads} and {width}")
