"""OpenCLIP's contrastive loss without the similarity matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modalign.common.dtypes import accumulator
from modalign.losses.drop_ins.rows import positive_number, require_rows
from modalign.losses.functional import info_nce

__all__ = ["ClipLoss"]


class ClipLoss(nn.Module):
    """OpenCLIP's ``ClipLoss``: the symmetric InfoNCE of paired image and text features.

        loss = mean_i (log sum_j exp S_ij + log sum_j exp S_ji) / 2 - S_ii
        S_ij = logit_scale * <image_features_i, text_features_j>

    ``loss(image_features, text_features, logit_scale, logit_bias=None, output_dict=False)`` takes

        image_features, text_features: (n, d) tensors, used as they are (OpenCLIP's models normalise them).
        logit_scale: positive float or tensor with one element, whose gradient is exact.
        logit_bias: float, tensor with one element, or None. A number added to every logit changes nothing in a softmax:
            the loss is the same with and without it, and its gradient is zero.
        output_dict: bool. Return ``{"contrastive_loss": loss}``.

    and returns the loss, float64 for float64 features and float32 otherwise (the original keeps half precision). Peak
    memory is O(n d). The loss does not call ``get_logits`` and ``get_ground_truth``, which are there for code that
    calls them: ``get_logits`` stores the whole matrix, in O(n^2).

    Args:
        local_loss: without effect in one process.
        gather_with_grad: without effect in one process.
        cache_labels: bool. Keep the labels of ``get_ground_truth`` in ``labels``.
        rank: without effect in one process.
        world_size: int, must be 1. For several processes gather the features with ``modalign.gather`` first.
        use_horovod: without effect in one process.

    Raises:
        NotImplementedError: world_size > 1.
        ValueError: a scale or bias with more than one element, and what ``modalign.info_nce`` refuses.

    Source:
        open_clip_torch 3.3.0; Radford et al. 2021 (arXiv:2103.00020).

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import ClipLoss
        >>> image, text = torch.eye(4), torch.eye(4)
        >>> round(ClipLoss()(image, text, torch.tensor(2.0)).item(), 4)  # log(1 + 3 exp(-2))
        0.3408
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__()
        if world_size > 1:
            raise NotImplementedError(
                f"ClipLoss: world_size must be 1, got {world_size}: the loss is computed from the rows of one process. "
                "Gather the features with modalign.gather first, then pass all of them"
            )
        self.local_loss, self.gather_with_grad, self.cache_labels = local_loss, gather_with_grad, cache_labels
        self.rank, self.world_size, self.use_horovod = rank, world_size, use_horovod
        self.prev_num_logits = 0
        self.labels: dict[torch.device, Tensor] = {}

    def get_ground_truth(self, device: torch.device, num_logits: int) -> Tensor:
        """Return the labels 0, ..., num_logits - 1 of the pairs, from ``labels`` if they are kept there."""
        if self.prev_num_logits == num_logits and device in self.labels:
            return self.labels[device]
        labels = torch.arange(num_logits, device=device)
        if self.cache_labels:
            self.labels[device], self.prev_num_logits = labels, num_logits
        return labels

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of images (n, n) and of texts, in the dtype of the features."""
        logits = logit_scale * image_features @ text_features.T
        if logit_bias is not None:
            logits = logits + logit_bias
        return logits, logits.T

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        require_rows("ClipLoss", image_features=image_features, text_features=text_features)
        scale = positive_number("ClipLoss", "logit_scale", logit_scale, image_features)
        if isinstance(scale, Tensor):
            scale = scale.to(accumulator(image_features.dtype))
        loss = info_nce(image_features, text_features, temperature=1 / scale, normalize=False)
        if isinstance(logit_bias, Tensor):
            # a trained bias stays in the graph, as distributed training wants, with the gradient it has: zero
            loss = loss + 0 * _scalar("logit_bias", logit_bias).to(loss.dtype)
        return {"contrastive_loss": loss} if output_dict else loss


def _scalar(name: str, value: Tensor) -> Tensor:
    if value.numel() != 1:
        raise ValueError(f"ClipLoss: {name} must have one element, got shape {tuple(value.shape)}")
    return value.reshape(())
