"""The networks that ``encoders`` builds: each maps a batch of one modality to ``dim`` features a row.

None of them holds buffers, draws random numbers or mixes rows, so copies of one can be stacked and called at once.
``every_layer`` gives what each layer makes of a batch, (n, width) each, the output last; ``forward`` is its last.
"""

from __future__ import annotations

import abc
import itertools

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["CNN", "MLP", "Bag", "Features", "SequenceTransformer", "Transformer", "VisionTransformer", "as_float"]


class Layered(nn.Module, abc.ABC):
    """A network that shows its layers."""

    def forward(self, x: Tensor) -> Tensor:
        return self.every_layer(x)[-1]

    @abc.abstractmethod
    def every_layer(self, x: Tensor) -> list[Tensor]:
        """What each layer makes of x: (n, width) each, the output last."""


class MLP(Layered):
    """``depth`` linear layers with LeakyReLU between them."""

    def __init__(self, features: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        sizes = [features, *[width] * (depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(sizes[-1], dim)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        x = as_float(x, self.out.weight.dtype).flatten(1)
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x))
            found.append(x)
        return [*found, self.out(x)]


class CNN(Layered):
    """3 x 3 convolutions of stride 2, each normalised over its channels and positions, then the mean over positions.

    The normalisation is of one row at a time (GroupNorm with one group): a row's features do not depend on its batch.
    A layer is the mean over positions of a stage.
    """

    def __init__(self, channels: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        sizes = [channels, *[width * 2**stage for stage in range(depth)]]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in sizes[1:])
        self.out = nn.Linear(sizes[-1], dim)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        x = as_float(x, self.out.weight.dtype)
        found = []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)))
            found.append(x.mean((2, 3)))
        return [*found, self.out(found[-1])]


class Bag(Layered):
    """The mean embedding of a row's tokens, then an MLP. A row of padding alone has the embedding zero."""

    def __init__(self, vocabulary: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.mlp = MLP(width, width, depth, dim)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        mean = _mean_of_kept(self.embedding(x), x != 0)
        return [mean, *self.mlp.every_layer(mean)]


class Features(Layered):
    """The input itself, flattened: nothing is trained."""

    def every_layer(self, x: Tensor) -> list[Tensor]:
        return [as_float(x, x.dtype if x.is_floating_point() else torch.float32).flatten(1)]


class _Tower(Layered):
    """Pre-norm blocks of attention over the steps of a row that are kept, pooled: what every transformer here ends in.

    pooling: "mean" over the kept steps, or "cls", a learned step put before the others. A layer is a block, pooled.
    """

    def _build(self, width: int, depth: int, heads: int, dim: int, pooling: str = "mean") -> None:
        self.cls = nn.Parameter(torch.randn(width) * 0.02) if pooling == "cls" else None
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, dim)

    def _climb(self, x: Tensor, kept: Tensor | None) -> list[Tensor]:
        """x: (n, length, width); kept: (n, length) bool, None for all."""
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), 1, -1), x], 1)
            kept = kept if kept is None else F.pad(kept, (1, 0), value=True)
        found = []
        for block in self.blocks:
            x = block(x, kept)
            found.append(self._pooled(x, kept))
        return [*found, self.out(self._pooled(self.norm(x), kept))]

    def _pooled(self, x: Tensor, kept: Tensor | None) -> Tensor:
        if self.cls is not None:
            return x[:, 0]
        return x.mean(1) if kept is None else _mean_of_kept(x, kept)


class Transformer(_Tower):
    """Token and position embeddings, pre-norm blocks that attend to tokens which are not padding, and their mean."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self._build(width, depth, heads, dim)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        return self._climb(self.embedding(x) + self.positions[: x.shape[1]], x != 0)


class SequenceTransformer(_Tower):
    """Feature vectors as steps: a linear layer where ``width`` is not theirs, position embeddings, blocks, pooling.

    A step whose features are all 0 is padding, wherever it stands. Positions count the kept steps from the first one
    on, so that a row's output does not depend on how much padding it has, nor on which side.
    """

    def __init__(
        self, features: int, length: int, width: int | None, depth: int, heads: int, dim: int, pooling: str
    ) -> None:
        super().__init__()
        self.into = None if width is None else nn.Linear(features, width)
        width = features if width is None else width
        self.positions = nn.Parameter(torch.randn(length, width) * 0.02)
        self._build(width, depth, heads, dim, pooling)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        kept = (x != 0).any(-1)
        x = x.to(self.positions.dtype)
        x = x if self.into is None else self.into(x)
        places = (kept.cumsum(1) - 1).clamp(min=0)
        return self._climb(x + F.embedding(places, self.positions), kept)


class VisionTransformer(_Tower):
    """Patches of an image as steps: a linear layer, position embeddings, blocks, pooling."""

    def __init__(
        self, channels: int, sides: tuple[int, int], patch: int, width: int, depth: int, heads: int, dim: int,
        pooling: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch = patch
        self.into = nn.Linear(channels * patch * patch, width)
        self.positions = nn.Parameter(torch.randn(sides[0] // patch * (sides[1] // patch), width) * 0.02)
        self._build(width, depth, heads, dim, pooling)

    def every_layer(self, x: Tensor) -> list[Tensor]:
        n, channels, height, width = x.shape
        side = self.patch
        grid = as_float(x, self.positions.dtype).reshape(n, channels, height // side, side, width // side, side)
        patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * side * side)
        return self._climb(self.into(patches) + self.positions, None)


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
    """x in a floating dtype; uint8 are pixels, mapped to [-1, 1]."""
    return x.to(dtype) / 127.5 - 1 if x.dtype == torch.uint8 else x.to(dtype)


def _mean_of_kept(x: Tensor, kept: Tensor) -> Tensor:
    weights = kept.to(x.dtype)[..., None]
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)
