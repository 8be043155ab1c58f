"""What a finding of a check usually means, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from modalign.distributed.findings import Finding, power_of_ranks

__all__ = ["advised", "likely_cause", "row_notes"]

SHOWN = 5  # numbers of items in a message
# why a gradient is no multiple of one process's, by what the losses of the ranks tell
CAUSES = {
    "right": "the loss is right and its gradient is not: some of the gathered rows lack their gradient, as those of a "
    "loss of the rank's own anchors may (gather with gradient); or, where ranks have different numbers of rows, the "
    "mean of each rank's own rows counts as much as that of another (multiply it by P n_r / N)",
    "some right": "the loss is right on rank {right} and wrong on rank {wrong}: look for rows, targets or groups that "
    "are in another order there, such as gathered rows that begin with the rank's own",
    "one": "all ranks have one loss, of other rows or another order than one process: look for rows that a padded "
    "sampler repeats or leaves out, and for targets, weights or groups that do not follow the rows",
    "several": "each rank has a loss of its own: look for negatives of the rank's own rows alone, for targets that "
    "begin at 0 on each rank while the rows of all ranks are gathered, and for means over uneven shards that are "
    "averaged",
}
UNREDUCED = {
    0: "their mean over ranks is right; wrap the module in DistributedDataParallel or fully_shard, or all_reduce the "
    "gradients and divide by the number of ranks",
    -1: "their sum over ranks is right; all_reduce the gradients, or wrap the module in DistributedDataParallel or "
    "fully_shard and multiply the loss by the number of ranks",
    None: "wrap the module in DistributedDataParallel or fully_shard, or all_reduce the gradients",
}
LOSS = {
    1: "divide the loss by the number of ranks",
    -1: "every rank reports its part of the loss; sum them, or do not divide by the number of ranks",
    2: "the loss is multiplied by the number of ranks twice",
    -2: "the loss is divided by the number of ranks twice",
}
LOSS_ALONE = "; the gradients are right, so change the reported value only"
GRADIENT = {
    1: "the gradients of the ranks are added up: divide the loss by the number of ranks, or take the mean of gradients",
    -1: "the rows of other ranks take part without their gradient: gather with gradient (modalign.gather), or use "
    'process_group="world"',
    2: "the gradients of the ranks are added up twice: divide the loss by the number of ranks, and take the mean of "
    "gradients",
    -2: "the gradients are divided by the number of ranks twice: take their mean once, and gather with gradient",
}
WITH_THE_LOSS = {
    1: "divide the loss by the number of ranks",
    -1: "the loss is divided by the number of ranks, and the mean of gradients divides again: do so once",
    2: "the loss is multiplied by the number of ranks twice",
    -2: "the loss is divided by the number of ranks twice",
}
COUNTED = (
    "every rank has its whole gradient, and they are added up: take their mean, or keep it for one rank (a temperature "
    "is counted once)"
)
SPLIT = "every rank has its whole gradient, and it is divided by the number of ranks: leave it undivided"


def likely_cause(losses: Sequence[float], single: float, tolerance: float) -> str:
    """Return the likely cause of gradients that are no multiple of those of one process.

    Args:
        losses: The losses of the ranks.
        single: That of one process.
        tolerance: The relative difference up to which losses are equal.

    Examples:
        >>> from modalign.distributed.advice import likely_cause
        >>> likely_cause([1.5, 2.0], 1.5, 1e-3)[:50]
        'the loss is right on rank 0 and wrong on rank 1: l'
    """
    wrong = [rank for rank, loss in enumerate(losses) if abs(loss - single) > tolerance * abs(single)]
    right = [rank for rank in range(len(losses)) if rank not in wrong]
    if not wrong or abs(sum(losses) / len(losses) - single) <= tolerance * abs(single):
        return CAUSES["right"]
    if right:
        return CAUSES["some right"].format(right=_shown(right), wrong=_shown(wrong))
    return CAUSES["one" if max(losses) - min(losses) <= tolerance * abs(single) else "several"]


def advised(loss: Finding, parameters: Sequence[Finding], ranks: int, cause: str) -> tuple[Finding, list[Finding]]:
    """Return the findings with what they mean.

    Args:
        loss: That of the loss.
        parameters: Those of the gradients.
        ranks: The number of ranks.
        cause: Why gradients that are no multiple differ.
    """
    of_loss = power_of_ranks(loss.factor, ranks) if loss.kind == "multiple" else None
    whole = [finding for finding in parameters if finding.numbers > 1] or list(parameters)
    of_whole = {power_of_ranks(one.factor, ranks) if one.kind == "multiple" else None for one in whole}
    results = []
    for one in parameters:
        text = ""
        power = power_of_ranks(one.factor, ranks)
        if one.kind == "unreduced":
            text = UNREDUCED[0 if abs(one.factor - 1) <= 0.02 else power if power == -1 else None]
        elif one.kind == "missing":
            text = "the ranks and one process must use the same parameters; look for what depends on the rank"
        elif one.kind == "not finite":
            text = "look at the step in one process first"
        elif one.kind == "different":
            text = cause
        elif one.kind == "multiple" and power is None:
            text = (
                "no power of the number of ranks: look for a factor that the ranks or one process lack, such as the "
                "number of accumulation steps or of rows"
            )
        elif one.kind == "multiple" and power is not None:
            text = WITH_THE_LOSS[power] if power == of_loss else GRADIENT[power]
            if one.numbers == 1 and abs(power) == 1 and power not in of_whole and power != of_loss:
                text = COUNTED if power == 1 else SPLIT
        results.append(dataclasses.replace(one, advice=text))
    text = ""
    if of_loss is not None:
        text = LOSS[of_loss] + (LOSS_ALONE if all(one.kind == "equal" for one in parameters) else "")
    elif loss.kind == "different":
        text = cause
    elif loss.kind == "not finite":
        text = "look at the step in one process first"
    return dataclasses.replace(loss, advice=text), results


def row_notes(ranks: Sequence[Sequence[int]], single: Sequence[int]) -> tuple[list[str], bool]:
    """Return what is off about the items that the ranks use, and whether items are missing or repeated.

    Args:
        ranks: The numbers of the items of each rank.
        single: Those of one process.
    """
    used = [item for items in ranks for item in items]
    extra, missing = Counter(used) - Counter(single), Counter(single) - Counter(used)
    notes = []
    if extra:
        holders = sorted({rank for rank, items in enumerate(ranks) if set(items) & set(extra)})
        notes.append(
            f"items {_shown(extra)} are used more often than in one process (on ranks {_shown(holders)}), as a sampler "
            "does that pads the last batch: drop them (drop_last=True, or shards of uneven sizes)"
        )
    if missing:
        notes.append(
            f"items {_shown(missing)} are used by one process and by no rank: divide all items among the ranks"
        )
    if not notes and used != list(single):
        place = next(i for i, (a, b) in enumerate(zip(used, single, strict=True)) if a != b)
        rank = next(r for r in range(len(ranks)) if sum(map(len, ranks[: r + 1])) > place)
        notes.append(
            f"the ranks hold the items in another order than one process: the first that differs is item {used[place]} "
            f"on rank {rank}, where one process has {single[place]}"
        )
    return notes, bool(extra or missing)


def _shown(numbers: Counter[int] | Sequence[int]) -> str:
    ordered = sorted(numbers)
    return ", ".join(map(str, ordered[:SHOWN])) + (f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")
