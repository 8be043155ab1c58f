"""lightly's NT-Xent loss without the similarity matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from modalign.common.checks import number
from modalign.distributed.party import ProcessGroup, copied_as_it_is
from modalign.losses.drop_ins.own_pairs import mean_or_zero
from modalign.losses.drop_ins.rows import (
    Gathered,
    alone,
    cross_entropy,
    log_pool,
    party_of_losses,
    require_finite,
    require_rows,
    require_switch,
    unit_length,
)
from modalign.losses.functional import nt_xent
from modalign.losses.gathering import count_processes
from modalign.losses.pools import dots

__all__ = ["NTXentLoss"]

SWITCH = "gather_distributed=True"


class NTXentLoss(nn.Module):
    """lightly's ``NTXentLoss``: SimCLR's loss of two views, or MoCo's with a memory bank.

    Without a bank the 2n rows of both views are anchors, and all other rows their candidates (``modalign.nt_xent``).
    With a bank b_1, ..., b_m of earlier second views, and S the cosine over the temperature,

        loss = mean_i log(exp S(x_i, y_i) + sum_k exp S(x_i, b_k)) - S(x_i, y_i)

    ``loss(out0, out1)`` takes two views (n, d), which it normalises, and returns a scalar, float64 for float64 views
    and float32 otherwise. Peak memory is O((n + m) d), never O(n^2) or O(n m).

    Args:
        temperature: positive float.
        memory_bank_size: 0 for no bank, or (m, d): number of rows and of features. The bank is the buffer
            ``memory_bank.bank``, which starts with random unit rows and is not part of the state dict. After a step
            whose out0 requires a gradient, the batch's out1 replaces the rows from ``memory_bank.bank_ptr`` on; a batch
            that passes the end of the bank is cut there, as in lightly.
        gather_distributed: bool. In distributed training the rows of all processes are candidates of the anchors of
            this process, and all rows enter the bank. In one process it is without effect. Each process returns the
            loss of its own anchors, and a row receives the gradient of the sum of the losses of all processes, so that
            the mean that DDP takes is, for even batches, that of one process with the whole batch. A process computes
            16 N^2 d / P FLOPs for N rows on P processes.
        process_group: for gather_distributed, the processes: "world" (the default), a process group, or a
            ``modalign.distributed.Sharding`` with its settings. Without it the loss is that of this process, with a
            warning once where there are others; "self" is this process without one. lightly does not have it.

    Raises:
        ValueError: a temperature that is not positive (lightly takes negative ones too), a memory_bank_size that is not
            0 or (m, d), gather_distributed where torch has no distributed package, views that do not fit the bank, and
            what ``modalign.nt_xent`` refuses.

    Source:
        lightly 1.6.0; Chen et al. 2020 (arXiv:2002.05709), He et al. 2020 (arXiv:1911.05722).

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import NTXentLoss
        >>> round(NTXentLoss(temperature=0.5)(torch.eye(4), torch.eye(4)).item(), 4)  # log(1 + 6 exp(-2))
        0.5944
        >>> loss = NTXentLoss(memory_bank_size=(64, 4))
        >>> loss(torch.eye(4, requires_grad=True), torch.eye(4)).backward()
        >>> loss.memory_bank.bank[:4].equal(torch.eye(4))
        True
    """

    eps = 1e-8

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
        *,
        process_group: ProcessGroup = "unset",
    ) -> None:
        super().__init__()
        if not 0 < number("NTXentLoss", "temperature", temperature) < math.inf:
            raise ValueError(f"NTXentLoss: temperature must be positive and finite, got {temperature}")
        if temperature < self.eps:
            raise ValueError(f"NTXentLoss: temperature must be at least {self.eps}, got {temperature}")
        if gather_distributed and not dist.is_available():
            raise ValueError("NTXentLoss: gather_distributed needs torch.distributed, which this torch lacks")
        require_switch("NTXentLoss", process_group, SWITCH, is_on=gather_distributed)
        self.temperature, self.gather_distributed = temperature, gather_distributed
        self.process_group = copied_as_it_is(process_group)
        self.memory_bank = _MemoryBank(memory_bank_size)
        self.cross_entropy = nn.CrossEntropyLoss()  # for code that reads it: the loss never has the logits

    @property
    def bank(self) -> Tensor:
        """The rows of the memory bank."""
        return self.memory_bank.bank

    @property
    def position(self) -> int:
        """The index of the row of the memory bank that is replaced next."""
        return int(self.memory_bank.bank_ptr)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """Return the loss of two views (n, d)."""
        several, group = self.gather_distributed and count_processes() > 1, self.process_group
        if self.memory_bank.size[0] == 0:
            temperature = self.temperature
            if not several:
                process = alone("NTXentLoss", group, SWITCH)
                return nt_xent(out0, out1, temperature=temperature, process_group=process)
            everyone = party_of_losses("NTXentLoss", group)
            return mean_or_zero(nt_xent(out0, out1, temperature=temperature, reduction="none", process_group=everyone))
        party = None
        if several and torch.is_grad_enabled():  # rows may enter the bank
            party = party_of_losses("NTXentLoss", group)
            party.checked(lambda: self._require_views(out0, out1))
        else:
            self._require_views(out0, out1)
        query, key = unit_length(out0), unit_length(out1)
        scale = 1 / self.temperature
        # a copy: the bank changes before the backward pass reads it
        negatives = self.memory_bank.bank.to(query, copy=True)
        loss = cross_entropy(scale * dots(query, key), log_pool(query, negatives, scale)).mean()
        keys = key.detach()
        if party is not None:
            party = party.describing(temperature=self.temperature, memory_bank_size=self.memory_bank.size)
            party = party.describing(out0_requires_grad=out0.requires_grad)
            keys = Gathered.of(party, keys, "a memory bank").rows
        if out0.requires_grad:  # only now: rows that the loss refuses stay out of the bank
            self.memory_bank.enqueue(keys)
        return loss

    def _require_views(self, out0: Tensor, out1: Tensor) -> None:
        """Raise an error for views that do not fit each other or the memory bank."""
        require_rows("NTXentLoss", out0=out0, out1=out1)
        if out0.ndim != 2 or out0.shape != out1.shape or 0 in out0.shape:
            raise ValueError(
                f"NTXentLoss: out0 and out1 must have one shape (n, d), not empty, "
                f"got {tuple(out0.shape)} and {tuple(out1.shape)}"
            )
        if out0.dtype != out1.dtype or out0.device != out1.device:
            raise TypeError(
                "NTXentLoss: out0 and out1 must share dtype and device, "
                f"got {out0.dtype} {out0.device} and {out1.dtype} {out1.device}"
            )
        require_finite("NTXentLoss", out0=out0, out1=out1)
        self.memory_bank.require_fit(out0)


class _MemoryBank(nn.Module):
    """The latest rows of second views, and the index of the row that is replaced next."""

    bank: Tensor
    bank_ptr: Tensor

    def __init__(self, memory_bank_size: int | Sequence[int]) -> None:
        super().__init__()
        size = (memory_bank_size,) if isinstance(memory_bank_size, int) else tuple(memory_bank_size)
        if size != (0,) and (len(size) != 2 or min(size) < 0):
            raise ValueError(f"NTXentLoss: memory_bank_size must be 0 or (rows, features), got {memory_bank_size}")
        self.size: tuple[int, ...] = size
        self.register_buffer("bank", F.normalize(torch.randn(size), dim=-1), persistent=False)
        # a tensor: a compiler takes a number for a constant, and would compile every step anew
        self.register_buffer("bank_ptr", torch.zeros(1, dtype=torch.long), persistent=False)

    def require_fit(self, rows: Tensor) -> None:
        if rows.shape[1] != self.size[1]:
            raise ValueError(
                f"NTXentLoss: out0 and out1 must be (n, {self.size[1]}), as the memory bank is, got {tuple(rows.shape)}"
            )
        if rows.device.type == "meta" and self.bank.device.type != "meta":
            raise TypeError(
                f"NTXentLoss: out0 and out1 have no values for the memory bank on {self.bank.device}: they are on the "
                'meta device. Move the loss there with loss.to("meta")'
            )

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest rows of the bank by keys (n, d), without those that are not finite or pass its end."""
        index = self.bank_ptr + torch.arange(keys.shape[0], device=self.bank.device)
        # beyond the end the row of the last place is written again
        index = index.clamp(max=self.size[0] - 1)
        keys = keys.to(self.bank)[index - self.bank_ptr]
        finite = keys.isfinite().all(1, keepdim=True)
        self.bank.index_copy_(0, index, torch.where(finite, keys, self.bank[index]))
        stop = self.bank_ptr + keys.shape[0]
        self.bank_ptr.copy_(torch.where(stop < self.size[0], stop, 0))
