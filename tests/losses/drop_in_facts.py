"""What the drop-in losses do on two ranks beyond their values: work, logits, compilation and refusals."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import modalign
from modalign.distributed import Sharding
from modalign.losses.drop_ins import ClipLoss, MultipleNegativesRankingLoss, NTXentLoss, SigLipLoss, info_nce_loss

MODES = [(local, with_grad) for local in (False, True) for with_grad in (False, True)]
ROWS, WIDTH = 6, 4


def facts(rank: int) -> dict[str, Any]:
    """Return the facts of one of two ranks, which the tests compare with what they should be."""
    x, y = torch.randn(2, ROWS, WIDTH, generator=torch.Generator().manual_seed(rank), dtype=torch.float64).unbind()
    x, y, scale = x.requires_grad_(), y.requires_grad_(), torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    clip = {mode: ClipLoss(*mode, cache_labels=True, rank=rank, world_size=2) for mode in MODES}
    bank = NTXentLoss(memory_bank_size=(20, WIDTH), gather_distributed=True)
    siglip = SigLipLoss(rank=rank, world_size=2)
    ranking = {
        count: MultipleNegativesRankingLoss(
            None, directions=directions, partition_mode=mode, gather_across_devices=True
        )
        for count, directions, mode in (
            (1, ("query_to_doc",), "joint"),
            (2, ("query_to_doc", "doc_to_query"), "per_direction"),
        )
    }
    of_columns = MultipleNegativesRankingLoss(
        None, similarity_fct="dot_score", directions=("query_to_doc", "query_to_query"), gather_across_devices=True
    )
    pairs = {count: partial(loss.compute_loss_from_embeddings, [x, y]) for count, loss in ranking.items()}
    losses: dict[str, Callable[[], Tensor]] = {
        **{f"ClipLoss{mode}": partial(loss, x, y, scale) for mode, loss in clip.items()},
        "NTXentLoss": partial(NTXentLoss(gather_distributed=True), x, y),
        **{f"MultipleNegativesRankingLoss{count}": loss for count, loss in pairs.items()},
    }

    def differentiated(loss: Callable[[], Tensor]) -> list[Tensor]:
        value = loss()
        return [value.detach(), *torch.autograd.grad(value, (x, y, scale))]

    def by_logits(loss: ClipLoss) -> Tensor:
        logits = loss.get_logits(x, y, scale)
        labels = loss.get_ground_truth(x.device, len(logits[0]))
        return (F.cross_entropy(logits[0], labels) + F.cross_entropy(logits[1], labels)) / 2

    compiled = {
        "ClipLoss": lambda: clip[True, True](x, y, scale),
        "three columns": lambda: ranking[1].compute_loss_from_embeddings([x, y, x + y]),
    }
    return {
        "work": {name: _work(loss, rows=(x, y)) for name, loss in losses.items()},
        "logits": {
            mode: [differentiated(partial(loss, x, y, scale)), differentiated(partial(by_logits, loss))]
            for mode, loss in clip.items()
        },
        "labels": {mode: loss.labels[x.device].tolist() for mode, loss in clip.items()},
        "compiled": {
            name: (loss().detach(), torch.compile(loss, fullgraph=True, backend="eager")().detach())
            for name, loss in compiled.items()
        },
        "numbers": [
            (loss(x, y, 3.1, -1.1).detach(), loss(x, y, *torch.tensor([3.1, -1.1], dtype=x.dtype)).detach())
            for loss in (*clip.values(), siglip)
        ],
        "autocast": [
            (_autocast(loss, x.float(), y.float()).detach(), loss(x.bfloat16(), y.bfloat16(), 3.0, -1.0).detach())
            for loss in (*clip.values(), siglip)
        ],
        "refusals": [
            _refusal(lambda: ClipLoss(rank=rank, world_size=3)(x, y, scale)),
            _refusal(lambda: SigLipLoss(rank=1 - rank, world_size=2)(x, y, scale, 0.0)),
            _refusal(lambda: clip[True, True](x[None], y[None], scale)),
            _refusal(lambda: ClipLoss(rank=rank, process_group="world")(x, y, scale)),
            _refusal(lambda: ClipLoss(False, bool(rank), rank=rank, world_size=2)(x, y, scale)),
            _refusal(lambda: NTXentLoss(0.5 + rank, (20, WIDTH), gather_distributed=True)(x, y)),
            _refusal(lambda: NTXentLoss(0.5, (20 + rank, WIDTH), gather_distributed=True)(x, y)),
            _refusal(lambda: bank(x.detach() if rank else x, y)),
            _refusal(
                lambda: MultipleNegativesRankingLoss(
                    None, 20.0 + rank, gather_across_devices=True
                ).compute_loss_from_embeddings([x, y, x])
            ),
        ],
        "overflow": [
            _refusal(partial(of_columns.compute_loss_from_embeddings, [1e160 * x * rank, *2 * [1e160 * y]])),
            _refusal(partial(of_columns.compute_loss_from_embeddings, 3 * [1e160 * x[: 3 * rank]])),
        ],
        "hearsay": [
            _refusal(lambda: clip[False, True](x, y, 3.0 - 4 * rank)),
            _refusal(lambda: siglip(x, y, 3.0, torch.eye(4) if rank else 0.0)),
            _refusal(lambda: ranking[1].compute_loss_from_embeddings([x, y[rank:]])),
            _refusal(lambda: bank(x, y[:, rank:])),
            _refusal(lambda: ClipLoss(world_size=2)(x, y, scale)),
        ],
        "warnings": [
            _warning(lambda: ClipLoss()(x, y, scale)),
            _warning(lambda: SigLipLoss()(x, y, scale, None)),
            _warning(lambda: NTXentLoss()(x, y)),
            _warning(lambda: MultipleNegativesRankingLoss(None).compute_loss_from_embeddings([x, y])),
            _warning(lambda: info_nce_loss(x, y)),
            _warning(lambda: ClipLoss(process_group="self")(x, y, scale)),
        ],
        "copies": _copies(),
    }


def _autocast(loss: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return loss(x, y, 3.0, -1.0)


def _warning(call: Callable[[], object]) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return " ".join(str(one.message) for one in caught)


def _copies() -> list[object]:
    """Return whether copies of modules have the same group, and the refusal to pickle one."""
    modules = [modalign.InfoNCE(process_group=dist.group.WORLD), ClipLoss(world_size=2, process_group=dist.group.WORLD)]
    same = [copy.deepcopy(module).process_group.group is dist.group.WORLD for module in modules]
    world = pickle.loads(pickle.dumps(modalign.NTXent(process_group=Sharding(way="ring")))).process_group
    return [*same, world == Sharding(way="ring"), _refusal(lambda: pickle.dumps(modules[0]))]


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except (TypeError, ValueError, RuntimeError) as error:
        return str(error)
    return "none"


def _work(loss: Callable[[], Tensor], rows: tuple[Tensor, Tensor]) -> float:
    """Return the FLOPs of the sharded operators for a loss and its gradients, over n N d."""
    from modalign.distributed import info_nce

    flops = 0.0
    forward, backward = info_nce.forward_operator, info_nce.backward_operator

    def count(x: Tensor, y: Tensor | None, products: int) -> None:
        nonlocal flops
        flops += 2 * products * x.shape[1] * (x.shape[1] / 2 if y is None else y.shape[1]) * x.shape[2]

    def counted_forward(*arguments: Any) -> Any:
        count(*arguments[:2], 1)
        return forward(*arguments)

    def counted_backward(*arguments: Any) -> Any:
        (x, y), (v, u) = arguments[:2], arguments[14:16]
        # S again, and a product for each table; in one stream W v is the whole product
        count(x, y, 1 + (v is not None) * (2 if y is None else 1) + (u is not None))
        return backward(*arguments)

    info_nce.forward_operator, info_nce.backward_operator = counted_forward, counted_backward
    try:
        torch.autograd.grad(loss(), rows)
    finally:
        info_nce.forward_operator, info_nce.backward_operator = forward, backward
    return flops / (ROWS * 2 * ROWS * WIDTH)
