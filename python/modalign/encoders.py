"""Unimodal encoders: small networks that turn a batch of one modality into ``dim`` features a row.

    mlp           any numeric input, flattened           (n, ...)            -> (n, dim)
    cnn           images, uint8 or float                 (n, channels, h, w) -> (n, dim)
    transformer   token ids, 0 is padding                (n, length) int64   -> (n, dim)
    bag           token ids, mean of embeddings          (n, length) int64   -> (n, dim)

None of them holds buffers, draws random numbers or mixes rows, so copies of one can be stacked and called at once.
uint8 inputs are pixels and are mapped to [-1, 1]. An encoder ends in a linear layer: no non-linearity after it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

__all__ = ["CNN", "MLP", "Bag", "EncoderConfig", "Transformer", "build_encoder", "seeded_module"]

_GENERATOR = threading.Lock()

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


class BagConfig(_Config):
    """The mean embedding of the tokens that are not padding, then an MLP of ``depth`` linear layers."""

    kind: Literal["bag"]
    width: Size = 32
    depth: Depth = 2
    dim: Size = 32


EncoderConfig = Annotated[MLPConfig | CNNConfig | TransformerConfig | BagConfig, Field(discriminator="kind")]


def build_encoder(config: EncoderConfig, example: Tensor, seed: int | None = None) -> nn.Module:
    """The encoder ``config`` describes, for inputs like ``example``.

    example: (n, ...) rows of the modality. Only its shape is read, and for token ids its largest value, which sets
    the size of the vocabulary: give every row that the encoder will see.
    seed: initial weights are a function of it alone and torch's global generator is left as it was; None draws from
    the global generator.
    Raises ValueError for an input the kind of encoder cannot take.

    Example:
        >>> import torch
        >>> from modalign.encoders import MLPConfig, build_encoder
        >>> build_encoder(MLPConfig(kind="mlp", dim=8), torch.zeros(5, 3), seed=0)(torch.ones(5, 3)).shape
        torch.Size([5, 8])
    """
    if example.ndim < 2 or example.numel() == 0:
        raise ValueError(f"{config.kind} encoder: the input must be (n, ...) and not empty, got {tuple(example.shape)}")
    if isinstance(config, CNNConfig):
        if example.ndim != 4 or min(example.shape[2:]) < 2**config.depth:
            raise ValueError(
                f"cnn encoder: the input must be images (n, channels, height, width) of at least {2**config.depth} "
                f"pixels a side for depth {config.depth}, got {tuple(example.shape)}; use mlp for features"
            )
        return seeded_module(lambda: CNN(example.shape[1], config.width, config.depth, config.dim), seed)
    if isinstance(config, MLPConfig):
        features = example[0].numel()
        return seeded_module(lambda: MLP(features, config.width, config.depth, config.dim), seed)
    if example.ndim != 2 or example.dtype != torch.int64 or bool((example < 0).any()):
        raise ValueError(
            f"{config.kind} encoder: the input must be token ids (n, length) int64, 0 for padding, "
            f"got {tuple(example.shape)} {example.dtype}; use mlp for features"
        )
    vocabulary, length = int(example.max()) + 1, example.shape[1]
    if isinstance(config, BagConfig):
        return seeded_module(lambda: Bag(vocabulary, config.width, config.depth, config.dim), seed)
    if config.width % config.heads:
        raise ValueError(f"transformer encoder: heads must divide width, got {config.heads} and {config.width}")
    return seeded_module(
        lambda: Transformer(vocabulary, length, config.width, config.depth, config.heads, config.dim), seed
    )


def seeded_module(make: Callable[[], nn.Module], seed: int | None) -> nn.Module:
    """``make()`` with weights drawn from ``seed`` alone; torch's global generator is left as it was."""
    if seed is None:
        return make()
    # modules draw from the global generator: one thread at a time, or two would share a sequence
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


class MLP(nn.Module):
    """``depth`` linear layers with LeakyReLU between them."""

    def __init__(self, features: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        sizes = [features, *[width] * (depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(sizes[-1], dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.every_layer(x)[-1]

    def every_layer(self, x: Tensor) -> list[Tensor]:
        """What each layer makes of x, the output last."""
        x = _as_float(x, self.out.weight).flatten(1)
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x))
            found.append(x)
        return [*found, self.out(x)]


class CNN(nn.Module):
    """3 x 3 convolutions of stride 2, each normalised over its channels and positions, then the mean over positions.

    The normalisation is of one row at a time (GroupNorm with one group): a row's features do not depend on its batch.
    """

    def __init__(self, channels: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        sizes = [channels, *[width * 2**stage for stage in range(depth)]]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in sizes[1:])
        self.out = nn.Linear(sizes[-1], dim)

    def forward(self, x: Tensor) -> Tensor:
        x = _as_float(x, self.out.weight)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)))
        out: Tensor = self.out(x.mean((2, 3)))
        return out


class Bag(nn.Module):
    """The mean embedding of a row's tokens, then an MLP. A row of padding alone has the embedding zero."""

    def __init__(self, vocabulary: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.mlp = MLP(width, width, depth, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.mlp(_mean_of_tokens(self.embedding(tokens), tokens))
        return out


class Transformer(nn.Module):
    """Token and position embeddings, pre-norm blocks that attend to tokens which are not padding, and their mean."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, tokens)
        out: Tensor = self.out(_mean_of_tokens(self.norm(x), tokens))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        n, length, width = x.shape
        split = self.attention_in(self.norm_1(x)).reshape(n, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()  # each (n, heads, length, width / heads)
        logits = query @ key.transpose(-2, -1) / (width // self.heads) ** 0.5
        # a finite floor: a row of padding alone attends to itself evenly instead of giving NaN
        logits = logits.masked_fill((tokens == 0)[:, None, None], torch.finfo(logits.dtype).min)
        attended = (logits.softmax(-1) @ value).transpose(1, 2).reshape(n, length, width)
        x = x + self.attention_out(attended)
        out: Tensor = x + self.mlp_out(F.gelu(self.mlp_in(self.norm_2(x))))
        return out


def _mean_of_tokens(x: Tensor, tokens: Tensor) -> Tensor:
    kept = (tokens != 0).to(x.dtype)[..., None]
    return (x * kept).sum(1) / kept.sum(1).clamp(min=1)


def _as_float(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype) / 127.5 - 1 if x.dtype == torch.uint8 else x.to(like.dtype)
