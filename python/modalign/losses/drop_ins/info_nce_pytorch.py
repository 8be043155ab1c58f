"""info-nce-pytorch's loss without the similarity matrix."""

from __future__ import annotations

from torch import Tensor, nn

from modalign.losses.drop_ins.torch_proposal import info_nce_loss

__all__ = ["InfoNCE", "info_nce"]


def info_nce(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: str = "mean",
    negative_mode: str = "unpaired",
) -> Tensor:
    """Compute info-nce-pytorch's ``info_nce``: InfoNCE in one direction, from queries to keys.

    It is ``info_nce_loss``, which documents equation, arguments, memory and errors. It is not ``modalign.info_nce``,
    whose loss has both directions and another default temperature.

    Source:
        info-nce-pytorch 0.1.4.

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import info_nce
        >>> round(info_nce(torch.eye(4), torch.eye(4), temperature=0.5).item(), 4)  # log(1 + 3 exp(-2))
        0.3408
    """
    return info_nce_loss(
        query, positive_key, negative_keys, temperature, reduction=reduction, negative_mode=negative_mode
    )


class InfoNCE(nn.Module):
    """info-nce-pytorch's ``InfoNCE``: the module of ``info_nce``, not ``modalign.InfoNCE``.

    ``loss(query, positive_key, negative_keys=None)`` returns ``info_nce`` of its arguments.

    Args:
        temperature: positive float, or a tensor with one element, which receives a gradient.
        reduction: "mean", "sum" or "none".
        negative_mode: "unpaired" for one set of negatives (m, d), or "paired" for (n, m, d), m negatives a query.

    Source:
        info-nce-pytorch 0.1.4.

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import InfoNCE
        >>> round(InfoNCE(temperature=0.5)(torch.eye(4), torch.eye(4)).item(), 4)  # log(1 + 3 exp(-2))
        0.3408
    """

    def __init__(
        self, temperature: float | Tensor = 0.1, reduction: str = "mean", negative_mode: str = "unpaired"
    ) -> None:
        super().__init__()
        self.temperature, self.reduction, self.negative_mode = temperature, reduction, negative_mode

    def forward(self, query: Tensor, positive_key: Tensor, negative_keys: Tensor | None = None) -> Tensor:
        """Return the loss of queries and keys (n, d)."""
        options = {"reduction": self.reduction, "negative_mode": self.negative_mode}
        return info_nce(query, positive_key, negative_keys, self.temperature, **options)
