"""What the drop-in losses refuse, and why."""

from collections.abc import Callable

import pytest
import torch
from tests.losses.test_drop_ins import ROWS, cos_sim, ranking

from modalign.losses.drop_ins import ClipLoss, NTXentLoss, SigLipLoss, info_nce_loss


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ClipLoss(world_size=2, use_horovod=True),
            "use_horovod must be False for world_size=2: rows travel through torch.distributed. Start the processes",
        ),
        (lambda: ranking(similarity_fct=cos_sim), "similarity_fct must be .* got cos_sim: any other returns the whole"),
        (lambda: ranking(similarity_fct="euclidean"), "similarity_fct must be .* got euclidean"),
    ],
)
def test_refusals_have_a_reason(call: Callable[[], object], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ClipLoss()(ROWS, ROWS, torch.ones(2)), ValueError, r"logit_scale must have one element, got .*\(2,\)"),
        (lambda: ClipLoss()(ROWS, ROWS, 1.0, torch.eye(4)), ValueError, "logit_bias must have one element"),
        (lambda: ClipLoss()(ROWS, ROWS, 0.0), ValueError, "logit_scale must be positive and finite, got 0.0"),
        (
            lambda: ClipLoss()(ROWS, ROWS, torch.tensor(0.0)),
            ValueError,
            "logit_scale must be positive and finite, got 0",
        ),
        (lambda: ClipLoss()(ROWS, ROWS, torch.tensor(torch.nan)), ValueError, "logit_scale must be .* finite, got nan"),
        (lambda: ClipLoss()(ROWS.numpy(), ROWS, 1.0), TypeError, "image_features must be a tensor of .* got ndarray"),
        (lambda: SigLipLoss()(ROWS, ROWS, 0.0, 0.0), ValueError, "logit_scale must be positive and finite, got 0.0"),
        (lambda: SigLipLoss()(ROWS, ROWS, 1.0, torch.eye(4)), ValueError, "SigLipLoss: logit_bias must have one elem"),
        (lambda: SigLipLoss()(ROWS, ROWS, 1.0, "2"), TypeError, "SigLipLoss: logit_bias must be a number, got '2'"),
        (lambda: SigLipLoss(dist_impl="all"), ValueError, "dist_impl must be one of .* got 'all'"),
        (lambda: SigLipLoss(process_group=2), TypeError, "process_group must be 'self', 'world', a .* got 2"),
        (lambda: ClipLoss(world_size=2)(ROWS, ROWS, 1.0), RuntimeError, r"needs torch.distributed.init_process_group"),
        (lambda: SigLipLoss(world_size=2)(ROWS, ROWS, 1.0, 0.0), RuntimeError, "needs torch.distributed.init_process"),
        (
            lambda: ClipLoss(world_size=2, process_group="self")(ROWS, ROWS, 1.0),
            ValueError,
            "process_group must be 'world', .* got 'self', which is one process",
        ),
        (lambda: ranking(scale=0.0), ValueError, "scale must be positive and finite, got 0.0"),
        (lambda: ranking(directions=()), ValueError, r"must hold 'query_to_doc', .* got \(\)"),
        (lambda: ranking(directions=("doc_to_query",)), ValueError, "must hold 'query_to_doc'"),
        (lambda: ranking(directions=("query_to_doc", "up")), ValueError, "and others of .* got"),
        (lambda: ranking(partition_mode="both"), ValueError, "must be 'joint' or 'per_direction', got 'both'"),
        (
            lambda: ranking(partition_mode="per_direction", directions=("query_to_doc", "doc_to_doc")),
            ValueError,
            "whose pools hold the positive",
        ),
        (lambda: ranking(hardness_mode="hard"), ValueError, "hardness_mode must be one of .* got 'hard'"),
        (lambda: ranking(hardness_strength=-1.0), ValueError, "hardness_strength must be .* got -1.0"),
        (lambda: ranking().compute_loss_from_embeddings([ROWS]), ValueError, r"two or more .* got shapes \[\(4, 4\)\]"),
        (lambda: ranking().compute_loss_from_embeddings([ROWS, ROWS[:3]]), ValueError, r"one shape .* \(3, 4\)\]"),
        (lambda: ranking().compute_loss_from_embeddings([ROWS, ROWS.double()]), TypeError, "share dtype and device"),
        (lambda: NTXentLoss(temperature=-0.5), ValueError, "temperature must be positive and finite, got -0.5"),
        (lambda: NTXentLoss(temperature=1e-9), ValueError, "temperature must be at least 1e-08, got 1e-09"),
        (lambda: NTXentLoss(memory_bank_size=64), ValueError, r"must be 0 or \(rows, features\), got 64"),
        (lambda: NTXentLoss(memory_bank_size=(64, -1)), ValueError, r"must be 0 or \(rows, features\), got \(64, -1\)"),
        (lambda: NTXentLoss(memory_bank_size=(8, 3))(ROWS, ROWS), ValueError, r"must be \(n, 3\), as the memory bank"),
        (lambda: info_nce_loss(ROWS, ROWS[:3]), ValueError, r"one shape \(n, d\), got \(4, 4\) and \(3, 4\)"),
        (lambda: info_nce_loss(ROWS[:0], ROWS[:0], ROWS), ValueError, r"must not be empty, got \(0, 4\)"),
        (lambda: info_nce_loss(ROWS, ROWS, ROWS, torch.ones(2)), ValueError, "temperature must have one element"),
        (lambda: info_nce_loss(ROWS, ROWS, ROWS, torch.tensor(-1.0)), ValueError, "temperature must be positive"),
        (lambda: info_nce_loss(ROWS[None], ROWS[None]), ValueError, r"one shape \(n, d\)"),
        (lambda: info_nce_loss(ROWS, ROWS, temperature=0.0), ValueError, "temperature must be positive"),
        (lambda: info_nce_loss(ROWS, ROWS, reduction="max"), ValueError, "reduction must be one of .* got 'max'"),
        (lambda: info_nce_loss(ROWS, ROWS, negative_mode="all"), ValueError, "negative_mode must be .* got 'all'"),
        (lambda: info_nce_loss(ROWS, ROWS, ROWS[:, :3]), ValueError, r"unpaired negative_keys must be \(m, 4\) with"),
        (lambda: info_nce_loss(ROWS, ROWS, ROWS[:0]), ValueError, r"m >= 1 for query \(4, 4\), got \(0, 4\)"),
        (
            lambda: info_nce_loss(ROWS, ROWS, ROWS[None], negative_mode="paired"),
            ValueError,
            r"paired negative_keys must be \(4, m, 4\) .* got \(1, 4, 4\)",
        ),
        (lambda: info_nce_loss(ROWS, ROWS, ROWS.double()), TypeError, "query and negative_keys must share dtype"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
