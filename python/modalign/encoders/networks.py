"""Networks of the encoders: each maps a batch of one modality to ``dim`` features a row.

A network holds no buffers, draws no random numbers after its initialisation and mixes no rows, so copies of one can be
stacked and called at once. ``every_layer`` returns the output of each layer, ``forward`` that of the last.
"""

from __future__ import annotations

import abc
import itertools

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["CNN", "MLP", "Bag", "Features", "SequenceTransformer", "Transformer", "VisionTransformer", "as_float"]


class Layered(nn.Module, abc.ABC):
    """A network that returns the output of each of its layers on request."""

    def forward(self, x: Tensor) -> Tensor:
        return self.every_layer(x)[-1]

    @abc.abstractmethod
    def every_layer(self, x: Tensor) -> list[Tensor]:
        """Return the output of each layer for x (n, ...): a list of (n, width), the network's output (n, dim) last."""


class MLP(Layered):
    """``depth`` linear layers with LeakyReLU between them, on the flattened row.

    Args:
        features: Number of values of a row.
        width: Width of the hidden layers.
        depth: Number of linear layers; 1 is a linear map.
        dim: Width of the output.
    """

    def __init__(self, features: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        sizes = [features, *[width] * (depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(sizes[-1], dim)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        x = as_float(x, self.out.weight.dtype).flatten(1)
        outputs = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x))
            outputs.append(x)
        return [*outputs, self.out(x)]


class CNN(Layered):
    """3 x 3 convolutions of stride 2, each normalised over its channels and positions, then the mean over positions.

    GroupNorm with one group normalises one row at a time, so a row's features do not depend on its batch. The output
    of a layer is the mean of a stage over positions.

    Args:
        channels: Channels of an image.
        width: Channels of the first stage; each further stage has twice as many.
        depth: Number of stages, each of which halves the image.
        dim: Width of the output.
    """

    def __init__(self, channels: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        sizes = [channels, *[width * 2**stage for stage in range(depth)]]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in sizes[1:])
        self.out = nn.Linear(sizes[-1], dim)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        x = as_float(x, self.out.weight.dtype)
        outputs = []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)))
            outputs.append(x.mean((2, 3)))
        return [*outputs, self.out(outputs[-1])]


class Bag(Layered):
    """The mean embedding of a row's tokens, then an MLP. A row of padding alone has the embedding zero.

    Args:
        vocabulary: Number of token ids; 0 is padding.
        width: Width of the embedding and of the MLP's hidden layers.
        depth: Linear layers of the MLP.
        dim: Width of the output.
    """

    def __init__(self, vocabulary: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.mlp = MLP(width, width, depth, dim)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        mean = _mean_of_kept(self.embedding(x), x != 0)
        return [mean, *self.mlp.every_layer(mean)]


class Features(Layered):
    """The input itself, flattened; nothing is trained."""

    def every_layer(self, x: Tensor) -> list[Tensor]:
        return [as_float(x, x.dtype if x.is_floating_point() else torch.float32).flatten(1)]


class _Tower(Layered):
    """The part that all transformers share: pre-norm blocks of attention over the kept steps of a row, then pooling.

    Pooling is the "mean" over the kept steps, or "cls", a learned step put before the others. The output of a layer is
    that of a block, pooled.
    """

    def _add_blocks(self, *, width: int, depth: int, heads: int, dim: int, pooling: str = "mean") -> None:
        self.cls = nn.Parameter(torch.randn(width) * 0.02) if pooling == "cls" else None
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, dim)

    def _run_blocks(self, x: Tensor, kept: Tensor | None) -> list[Tensor]:
        """Return the pooled output of each block for x (n, length, width); kept is (n, length) bool, None for all."""
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), 1, -1), x], 1)
            kept = kept if kept is None else F.pad(kept, (1, 0), value=True)
        outputs = []
        for block in self.blocks:
            x = block(x, kept)
            outputs.append(self._pooled(x, kept))
        return [*outputs, self.out(self._pooled(self.norm(x), kept))]

    def _pooled(self, x: Tensor, kept: Tensor | None) -> Tensor:
        if self.cls is not None:
            return x[:, 0]
        return x.mean(1) if kept is None else _mean_of_kept(x, kept)


class Transformer(_Tower):
    """Token and position embeddings, pre-norm blocks that attend to tokens which are not padding, and their mean.

    Args:
        vocabulary: Number of token ids; 0 is padding.
        length: Largest number of tokens of a row.
        width: Width of the blocks.
        depth: Number of blocks.
        heads: Attention heads; they divide ``width``.
        dim: Width of the output.
    """

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self._add_blocks(width=width, depth=depth, heads=heads, dim=dim)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        return self._run_blocks(self.embedding(x) + self.positions[: x.shape[1]], x != 0)


class SequenceTransformer(_Tower):
    """Feature vectors as steps: a linear layer where ``width`` is not theirs, position embeddings, blocks, pooling.

    A step whose features are all 0 is padding, wherever it stands. Positions count the kept steps from the first one
    on, so that a row's output does not depend on how much padding it has, nor on which side.

    Args:
        features: Features of a step.
        length: Largest number of steps of a row.
        width: Width of the blocks; None takes the features as they are, without a linear layer before the blocks.
        depth: Number of blocks.
        heads: Attention heads; they divide the width.
        dim: Width of the output.
        pooling: "mean" over the steps that are not padding, or "cls", a learned step put before them.
    """

    def __init__(
        self, features: int, length: int, width: int | None, depth: int, heads: int, dim: int, pooling: str
    ) -> None:
        super().__init__()
        self.into = None if width is None else nn.Linear(features, width)
        width = features if width is None else width
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self._add_blocks(width=width, depth=depth, heads=heads, dim=dim, pooling=pooling)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        kept = (x != 0).any(-1)
        x = x.to(self.positions.dtype)
        x = x if self.into is None else self.into(x)
        places = (kept.cumsum(1) - 1).clamp(min=0)
        return self._run_blocks(x + F.embedding(places, self.positions), kept)


class VisionTransformer(_Tower):
    """Patches of an image as steps: a linear layer, position embeddings, blocks, pooling.

    Args:
        channels: Channels of an image.
        sides: Height and width of an image.
        patch: Side of a patch; it divides both sides.
        width: Width of the blocks.
        depth: Number of blocks.
        heads: Attention heads; they divide ``width``.
        dim: Width of the output.
        pooling: "mean" over the patches, or "cls", a learned step put before them.
    """

    def __init__(
        self,
        channels: int,
        sides: tuple[int, int],
        patch: int,
        width: int,
        depth: int,
        heads: int,
        dim: int,
        pooling: str,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.into = nn.Linear(channels * patch * patch, width)
        self.positions = nn.Parameter(torch.randn(sides[0] // patch * (sides[1] // patch), width) * 0.02)
        self._add_blocks(width=width, depth=depth, heads=heads, dim=dim, pooling=pooling)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        n, channels, height, width = x.shape
        side = self.patch
        grid = as_float(x, self.positions.dtype).reshape(n, channels, height // side, side, width // side, side)
        patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * side * side)
        return self._run_blocks(self.into(patches) + self.positions, None)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, kept: Tensor | None) -> Tensor:
        n, length, width = x.shape
        split = self.attention_in(self.norm_1(x)).reshape(n, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind()  # each (n, heads, length, width / heads)
        logits = query @ key.transpose(-2, -1) / (width // self.heads) ** 0.5
        if kept is not None:
            # a finite floor: a row of padding alone attends to itself evenly instead of giving NaN
            logits = logits.masked_fill(~kept[:, None, None], torch.finfo(logits.dtype).min)
        attended = (logits.softmax(-1) @ value).transpose(1, 2).reshape(n, length, width)
        x = x + self.attention_out(attended)
        out: Tensor = x + self.mlp_out(F.gelu(self.mlp_in(self.norm_2(x))))
        return out


def as_float(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in a floating dtype; uint8 values are pixels and are mapped to [-1, 1]."""
    return x.to(dtype) / 127.5 - 1 if x.dtype == torch.uint8 else x.to(dtype)


def _mean_of_kept(x: Tensor, kept: Tensor) -> Tensor:
    weights = kept.to(x.dtype)[..., None]
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)
