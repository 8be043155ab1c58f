"""The by-products of InfoNCE: ``Stats``, from the sums that the loss needs anyway."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modalign.distributed.rows import total_of_ranks
from modalign.losses.pools import count_and_total, dots, sum_pools
from modalign.losses.sides import SharedOptions, Side

__all__ = ["Stats", "compute_stats"]


class Stats(NamedTuple):
    """The by-products that ``modalign.info_nce`` returns with ``stats``, from the passes that it makes anyway.

    Shapes are (...,), one value per problem, unless said otherwise. All fields but the log-sum-exps are detached.

    Attributes:
        x_lse: (..., n) log-sum-exp of the logits of the candidates of each anchor x_i, differentiable. -inf for rows
            that are ignored, None if direction is "y_to_x".
        y_lse: (..., n) the same for each anchor y_i; None if direction is "x_to_y".
        mutual_information: the InfoNCE bound in nats: mean log(number of candidates, before the margin) - mean loss.
        x_accuracy: the share of anchors x_i for which no candidate that counts is more similar than y_i. None if
            direction is "y_to_x".
        y_accuracy: the same for anchors y_i; None if direction is "x_to_y".
        positive: the mean similarity ``<x_i, y_i>`` of the pairs.
        negative: the mean similarity of the negatives, before the margin.
        entropy: the mean entropy, in nats, of the anchors' softmax over their candidates.
        effective_negatives: the mean exp(entropy) of the softmax over the negatives alone: how many negatives carry
            the weight. With positives="out" the softmax is over all candidates. 0 for an anchor without negatives.
        x_gradient: the Euclidean norm of the loss's gradient at x, with stats="gradient"; None otherwise.
        y_gradient: the Euclidean norm of the loss's gradient at y, with stats="gradient"; None otherwise.
    """

    x_lse: Tensor | None
    y_lse: Tensor | None
    mutual_information: Tensor
    x_accuracy: Tensor | None
    y_accuracy: Tensor | None
    positive: Tensor
    negative: Tensor
    entropy: Tensor
    effective_negatives: Tensor
    x_gradient: Tensor | None = None
    y_gradient: Tensor | None = None

    def trimmed(self) -> Stats:
        """Return the by-products of a rank that had no rows: without the row that took part in their place."""
        x_lse, y_lse = (None if lse is None else lse[..., :0] for lse in (self.x_lse, self.y_lse))
        return self._replace(x_lse=x_lse, y_lse=y_lse)


def compute_stats(
    sides: dict[str, Side], lses: tuple[Tensor, ...], losses: Tensor, *, options: SharedOptions, batch: torch.Size
) -> Stats:
    """Return the by-products of a call.

    Args:
        sides: "x" or "y", the rows that are the anchors, -> their side.
        lses: for each side, [problems, n] log-sum-exps of the anchors' candidates.
        losses: [problems, n] the losses of the pairs.
        options: the settings that the sides share.
        batch: the leading dimensions.
    """
    kept = options.kept

    call = options.call

    def of_all(values: Tensor) -> Tensor:
        return values if call is None else total_of_ranks(values, call)

    def mean(values: Tensor) -> Tensor:
        if kept is not None:
            sums = of_all(torch.where(kept, values, 0.0).sum(1)) / of_all(kept.sum(1).to(values.dtype))
        elif call is None:
            sums = values.mean(1)
        else:
            sums = of_all(values.sum(1)) / call.ranks.total
        return sums.reshape(batch)

    with torch.no_grad():
        summaries = [_summarize(side, options) for side in sides.values()]
    averages = {name: torch.stack([mean(one[name]) for one in summaries]).mean(0) for name in summaries[0]}
    by_side: dict[str, Tensor] = {}
    for name, lse, summary in zip(sides, lses, summaries, strict=True):
        by_side[f"{name}_lse"] = (lse if kept is None else torch.where(kept, lse, -torch.inf)).reshape(*batch, -1)
        by_side[f"{name}_accuracy"] = mean(summary["accuracy"])
    return Stats(
        x_lse=by_side.get("x_lse"),
        y_lse=by_side.get("y_lse"),
        mutual_information=averages["log_count"] - mean(losses.detach()),
        x_accuracy=by_side.get("x_accuracy"),
        y_accuracy=by_side.get("y_accuracy"),
        **{name: averages[name] for name in ("positive", "negative", "entropy", "effective_negatives")},
    )


def _summarize(side: Side, options: SharedOptions) -> dict[str, Tensor]:
    """Return the by-products of each anchor, [problems, n]: see ``Stats``."""
    rows = side.direction
    best = torch.stack([pool.best for pool in side.pools]).amax(0)
    count, total = sum_pools(side.pools)
    pair = dots(rows.anchors, rows.candidates)
    log_count = count + 1
    all_candidates = options.positives == "out"
    if all_candidates or side.mates is not None:
        mate_count, mate_total = count_and_total(
            rows.anchors, rows.candidates, options.ids, "different", call=options.call
        )
        if all_candidates:
            count, total = count + 1 - mate_count, total + pair - mate_total
        else:
            log_count = count + mate_count
    positives = (side.positive, side.positive) if side.mates is None else (side.mates.lse, side.mates.mean)
    negatives = [(pool.lse, pool.mean) for pool in side.pools]
    present = torch.stack([lse for lse, _ in negatives]).amax(0) > -torch.inf
    weighted = [*negatives, positives] if all_candidates else negatives
    return {
        "accuracy": (side.positive >= best).to(best.dtype),
        "positive": pair,
        "negative": total / count.clamp_min(1),
        "log_count": log_count.clamp_min(1).log(),
        "entropy": _entropy([*negatives, positives]),
        "effective_negatives": torch.where(present | all_candidates, _entropy(weighted).exp(), 0.0),
    }


def _entropy(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the entropy of the softmax over the union of parts.

    Each part is given by its log-sum-exp and by its mean logit under its own softmax.
    """
    lse = torch.stack([part for part, _ in parts]).logsumexp(0)
    shares = [((part - lse).exp().nan_to_num(0.0), mean) for part, mean in parts]
    return (lse - sum(share * mean for share, mean in shares)).nan_to_num(0.0, 0.0, 0.0)
