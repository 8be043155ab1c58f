"""InfoNCE as proposed for ``torch.nn.functional``, without the similarity matrix."""

from __future__ import annotations

from torch import Tensor

from modalign.common.checks import one_of
from modalign.common.dtypes import accumulator
from modalign.losses.drop_ins.rows import (
    alone,
    cross_entropy,
    log_pool,
    positive_number,
    require_finite,
    require_rows,
    unit_length,
)
from modalign.losses.functional import info_nce
from modalign.losses.pools import dots
from modalign.losses.reduction import REDUCTIONS

__all__ = ["info_nce_loss"]


def info_nce_loss(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: str = "mean",
    negative_mode: str = "unpaired",
) -> Tensor:
    """Compute InfoNCE in one direction, as proposed for ``torch.nn.functional`` and as info-nce-pytorch has it.

    With S(a, b) = cos(a, b) / temperature and the negatives N_i of query i,

        loss_i = log(exp S(q_i, p_i) + sum_{k in N_i} exp S(q_i, k)) - S(q_i, p_i)

    Args:
        query: (n, d) float16, bfloat16, float32 or float64; normalised here.
        positive_key: (n, d), row i paired with row i of query; normalised here.
        negative_keys: (m, d), one set of negatives for all queries, and the positive keys of other rows are no
            negatives (MoCo's form); (n, m, d) with negative_mode="paired"; or None: N_i are the positive keys of the
            other rows.
        temperature: positive float, or a tensor with one element, which receives a gradient.
        reduction: "mean", "sum" or "none" (shape (n,)).
        negative_mode: "unpaired", or "paired" if row i of negative_keys (n, m, d) belongs to query i. The proposal to
            PyTorch has the unpaired form alone.

    Returns:
        The loss, float64 for float64 inputs and float32 otherwise. The mean of the losses in both directions is the
        symmetric loss, ``modalign.info_nce``.

    Memory:
        O((n + m) d), or O(n m d) for paired negatives, as their own size is.

    Raises:
        ValueError: shapes that do not fit, a temperature that is not positive, or an unknown reduction or mode.
        TypeError: dtypes or devices that differ.

    Source:
        van den Oord et al. 2018 (arXiv:1807.03748); pytorch/pytorch pull request 195380; info-nce-pytorch 0.1.4.

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import info_nce_loss
        >>> query, key = torch.eye(4), torch.eye(4)
        >>> round(info_nce_loss(query, key, temperature=0.5).item(), 4)  # log(1 + 3 exp(-2))
        0.3408
        >>> round(info_nce_loss(query, key, -torch.eye(4)[:2], temperature=0.5, reduction="none")[0].item(), 4)
        0.1429
    """
    one_of("info_nce_loss", "reduction", reduction, REDUCTIONS)
    one_of("info_nce_loss", "negative_mode", negative_mode, ("unpaired", "paired"))
    require_rows("info_nce_loss", query=query, positive_key=positive_key)
    temperature = positive_number("info_nce_loss", "temperature", temperature, query)
    if query.ndim != 2 or query.shape != positive_key.shape:
        raise ValueError(
            "info_nce_loss: query and positive_key must have one shape (n, d), "
            f"got {tuple(query.shape)} and {tuple(positive_key.shape)}"
        )
    if query.numel() == 0:
        raise ValueError(f"info_nce_loss: query and positive_key must not be empty, got {tuple(query.shape)}")
    if negative_keys is None:
        group = alone("info_nce_loss", "unset", 'modalign.info_nce(..., direction="x_to_y", process_group="world")')
        in_batch: Tensor = info_nce(
            query, positive_key, temperature=temperature, direction="x_to_y", reduction=reduction, process_group=group
        )
        return in_batch
    require_rows("info_nce_loss", negative_keys=negative_keys)
    paired = negative_mode == "paired"
    wanted = (*query.shape[:1], "m", query.shape[1]) if paired else ("m", query.shape[1])
    shape = tuple(negative_keys.shape)
    if len(shape) != len(wanted) or 0 in shape or (*shape[:-2], "m", shape[-1]) != wanted:
        raise ValueError(
            f"info_nce_loss: {negative_mode} negative_keys must be ({', '.join(map(str, wanted))}) with m >= 1 for "
            f"query {tuple(query.shape)}, got {shape}"
        )
    for name, tensor in (("positive_key", positive_key), ("negative_keys", negative_keys)):
        if tensor.dtype != query.dtype or tensor.device != query.device:
            raise TypeError(
                f"info_nce_loss: query and {name} must share dtype and device, "
                f"got {query.dtype} {query.device} and {tensor.dtype} {tensor.device}"
            )
    require_finite("info_nce_loss", query=query, positive_key=positive_key, negative_keys=negative_keys)
    query, positive_key, negative_keys = unit_length(query), unit_length(positive_key), unit_length(negative_keys)
    scale = 1 / temperature
    if isinstance(scale, Tensor):
        scale = scale.to(query.device, accumulator(query.dtype))
    if paired:
        log_negatives = (scale * dots(query[:, None], negative_keys)).logsumexp(1)
    else:
        log_negatives = log_pool(query, negative_keys, scale)
    loss = cross_entropy(scale * dots(query, positive_key), log_negatives)
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()
