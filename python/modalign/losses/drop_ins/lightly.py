"""lightly's NT-Xent loss without the similarity matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from modalign.losses.drop_ins.rows import cross_entropy, log_pool, require_rows, require_temperature, unit_length
from modalign.losses.functional import nt_xent
from modalign.losses.pools import dots

__all__ = ["NTXentLoss"]


class NTXentLoss(nn.Module):
    """lightly's ``NTXentLoss``: SimCLR's loss of two views, or MoCo's with a memory bank.

    Without a bank the 2n rows of both views are anchors, and all other rows their candidates (``modalign.nt_xent``).
    With a bank b_1, ..., b_m of earlier second views, and S the cosine over the temperature,

        loss = mean_i log(exp S(x_i, y_i) + sum_k exp S(x_i, b_k)) - S(x_i, y_i)

    ``loss(out0, out1)`` takes two views (n, d), which it normalises, and returns a scalar, float64 for float64 views
    and float32 otherwise. Peak memory is O((n + m) d), never O(n^2) or O(n m).

    Args:
        temperature: positive float.
        memory_bank_size: 0 for no bank, or (m, d): number of rows and of features. The bank is the buffer ``bank``,
            which starts with random unit rows and is not part of the state dict. After a step whose out0 requires a
            gradient, the batch's out1 replaces the oldest rows; a batch that passes the end of the bank is cut there,
            as in lightly.
        gather_distributed: bool, must be False.

    Raises:
        NotImplementedError: gather_distributed.
        ValueError: a temperature that is not positive (lightly takes negative ones too), a memory_bank_size that is not
            0 or (m, d), views that do not fit the bank, and what ``modalign.nt_xent`` refuses.

    Source:
        lightly 1.6.0; Chen et al. 2020 (arXiv:2002.05709), He et al. 2020 (arXiv:1911.05722).

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import NTXentLoss
        >>> round(NTXentLoss(temperature=0.5)(torch.eye(4), torch.eye(4)).item(), 4)  # log(1 + 6 exp(-2))
        0.5944
        >>> loss = NTXentLoss(memory_bank_size=(64, 4))
        >>> loss(torch.eye(4, requires_grad=True), torch.eye(4)).backward()
        >>> loss.bank[:4].equal(torch.eye(4))
        True
    """

    bank: Tensor

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        require_temperature("NTXentLoss", temperature)
        if gather_distributed:
            raise NotImplementedError(
                "NTXentLoss: gather_distributed must be False: the loss is computed from the rows of one process. "
                "Gather the views with modalign.gather first, then pass all of them"
            )
        size = (memory_bank_size,) if isinstance(memory_bank_size, int) else tuple(memory_bank_size)
        if size != (0,) and (len(size) != 2 or min(size) < 0):
            raise ValueError(f"NTXentLoss: memory_bank_size must be 0 or (rows, features), got {memory_bank_size}")
        self.temperature, self.gather_distributed = temperature, gather_distributed
        self.size: tuple[int, ...] = size
        self.position = 0
        self.register_buffer("bank", F.normalize(torch.randn(size), dim=-1), persistent=False)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """Return the loss of two views (n, d)."""
        if self.size[0] == 0:
            return nt_xent(out0, out1, temperature=self.temperature)
        require_rows("NTXentLoss", out0=out0, out1=out1)
        if out0.ndim != 2 or out0.shape != out1.shape or out0.shape[1] != self.size[1] or len(out0) == 0:
            raise ValueError(
                f"NTXentLoss: out0 and out1 must be (n, {self.size[1]}), as the memory bank is, "
                f"got {tuple(out0.shape)} and {tuple(out1.shape)}"
            )
        query, key = unit_length(out0), unit_length(out1)
        # a copy: the bank changes before the backward pass reads it
        negatives = self.bank.to(query, copy=True)
        scale = 1 / self.temperature
        loss = cross_entropy(scale * dots(query, key), log_pool(query, negatives, scale)).mean()
        if out0.requires_grad:  # only now: rows that the loss refuses stay out of the bank
            self._enqueue(key.detach())
        return loss

    def _enqueue(self, keys: Tensor) -> None:
        """Replace the oldest rows of the bank by keys (n, d)."""
        stop = min(self.position + len(keys), self.size[0])
        self.bank[self.position : stop] = keys[: stop - self.position].to(self.bank)
        self.position = stop % self.size[0]
