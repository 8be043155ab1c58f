"""Networks as the published code of papers defines them, for studies that follow this code step by step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from modalign.encoders.networks import Layered, as_float

__all__ = ["LeakyMLP", "MultiBenchTransformer"]


class LeakyMLP(Layered):
    """The MLP that Tjandrasuwita et al. train on synthetic data: LeakyReLU of slope 0.1 follows every layer.

    Args:
        features: Number of values of a row.
        depth: Number of layers.
        dim: Width of every layer.
    """

    def __init__(self, features: int, depth: int, dim: int) -> None:
        super().__init__()
        sizes = [features, *[dim] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def every_layer(self, x: Tensor) -> list[Tensor]:
        x = as_float(x, self.layers[0].weight.dtype).flatten(1)  # type: ignore[arg-type]
        outputs = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            outputs.append(x)
        return outputs


class MultiBenchTransformer(Layered):
    """The Transformer that Tjandrasuwita et al. train on the data of MultiBench.

    A linear layer, learned positions, and post-norm blocks::

        x <- norm_1(x + attention(x)),    x <- norm_2(x + W_2 relu(W_1 x))      W_1, W_2 square

    Dropout acts on the attention, on both sums and after the ReLU. The initial values of positions and of the CLS step
    are N(0, 1), and all blocks start from the same weights, because ``torch.nn.TransformerEncoder`` copies one. Steps
    that are padding are attended to by no step, but they are steps: they come last, have positions, and count in the
    mean. The output of a layer is that of a block, pooled; nothing follows the last block.

    Args:
        features: Features of a step.
        length: Number of steps of a row.
        width: Width of the blocks and of the output.
        depth: Number of blocks.
        heads: Attention heads; they divide ``width``.
        pooling: "mean" over all steps, padding included, or "cls", a learned step put before them.
        dropout: Share of values that training sets to 0, by the masks of ``dropout_masks``.
        padding: Whether steps of zeros before the first other one are padding; False takes every step as data.
    """

    def __init__(
        self,
        *,
        features: int,
        length: int,
        width: int,
        depth: int,
        heads: int = 1,
        pooling: str = "mean",
        dropout: float = 0.1,
        padding: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.padding = heads, dropout, padding
        self.into = nn.Linear(features, width)
        # it holds the parameters, with torch's initial values; dropout is drawn outside, from the seed of a run
        block = nn.TransformerEncoderLayer(width, heads, width, dropout=0)
        self.blocks = nn.ModuleList(copy.deepcopy(block) for _ in range(depth))
        self.cls = nn.Parameter(torch.randn(width)) if pooling == "cls" else None
        self.positions = nn.Parameter(torch.randn(length + (pooling == "cls"), width))

    def forward(self, x: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        return self.every_layer(x, masks)[-1]

    def every_layer(self, x: Tensor, masks: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the pooled output of each block for x (n, length, features): (n, width) each.

        Args:
            x: Steps of features.
            masks: Those of ``dropout_masks`` for n rows in training; none in evaluation.
        """
        n, length, _ = x.shape
        before = torch.zeros(n, length, dtype=torch.bool, device=x.device)
        if self.padding:
            before = (x != 0).any(-1).cumsum(1) == 0
        # padding goes behind the data, and so do its positions
        places = (torch.arange(length, device=x.device) - before.sum(1, keepdim=True)) % length
        x = self.into(x.to(self.positions.dtype))
        if self.cls is not None:
            x = torch.cat([self.cls.expand(n, 1, -1), x], 1)
            places, before = F.pad(places + 1, (1, 0)), F.pad(before, (1, 0))
        x = x + F.embedding(places, self.positions)
        outputs = []
        for i, block in enumerate(self.blocks):
            x = self._block(block, x, before, masks[4 * i : 4 * i + 4])
            outputs.append(x.mean(1) if self.cls is None else x[:, 0])
        return outputs

    def dropout_masks(self, n: int, generator: torch.Generator) -> list[Tensor]:
        """Draw which values stay: for every block (n, heads, steps, steps), then three times (n, steps, width).

        Args:
            n: Rows of the batch.
            generator: Where they are drawn from, and on whose device.
        """
        steps, width = self.positions.shape
        sizes = [(n, self.heads, steps, steps), *[(n, steps, width)] * 3] * len(self.blocks)
        empty = (torch.empty(size, dtype=torch.bool, device=generator.device) for size in sizes)
        return [mask.bernoulli_(1 - self.dropout, generator=generator) for mask in empty]

    def _block(self, block: nn.Module, x: Tensor, before: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Return one block's output (n, steps, width)."""
        assert isinstance(block, nn.TransformerEncoderLayer)
        n, steps, width = x.shape
        attention, shape = block.self_attn, (n, steps, 3, self.heads, width // self.heads)
        projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).reshape(shape)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind()
        logits = query @ key.transpose(-2, -1) / (width // self.heads) ** 0.5
        logits = logits.masked_fill(before[:, None, None], torch.finfo(logits.dtype).min)
        share = self._dropped(logits.softmax(-1), masks[:1])
        attended = (share @ value).transpose(1, 2).reshape(n, steps, width)
        x = block.norm1(x + self._dropped(attention.out_proj(attended), masks[1:2]))
        hidden = self._dropped(F.relu(block.linear1(x)), masks[2:3])
        out: Tensor = block.norm2(x + self._dropped(block.linear2(hidden), masks[3:]))
        return out

    def _dropped(self, x: Tensor, mask: Sequence[Tensor]) -> Tensor:
        return x * mask[0] / (1 - self.dropout) if mask else x
