"""OpenCLIP's contrastive losses without the similarity matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modalign.common.checks import number, one_of
from modalign.common.dtypes import accumulator
from modalign.distributed.party import Party, ProcessGroup, copied_as_it_is
from modalign.distributed.sharding import Sharding, require_process_group
from modalign.losses.drop_ins.own_pairs import info_nce_of_own_pairs, mean_or_zero, sigmoid_loss_of_own_pairs
from modalign.losses.drop_ins.rows import Gathered, alone, damp_gradient, party_of_losses, positive_number, require_rows
from modalign.losses.functional import info_nce, sigmoid_loss
from modalign.losses.gathering import count_processes

__all__ = ["ClipLoss", "SigLipLoss"]

# SigLipLoss's ways to exchange rows -> the settings of Sharding.way
WAYS = {None: "auto", "bidir": "ring", "shift": "ring", "reduce": "gathered", "gather": "gathered"}


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

    and returns the loss, float64 for float64 features and float32 otherwise (the original keeps half precision). The
    loss does not call ``get_logits`` and ``get_ground_truth``, which are there for code that calls them: ``get_logits``
    stores the whole matrix, in O(n^2).

    With ``world_size`` P > 1, rank r passes its n_r rows of a batch of N, and the loss and the gradients of each rank
    are those of the original. With L the mean over all pairs, and L_r that over the pairs of rank r among the
    candidates of all ranks, rank r gets

        gather_with_grad  local_loss  value  at its features  at logit_scale  DDP's mean over ranks, at the encoders
        True              False       L      P dL             dL              dL
        True              True        L_r    sum_s dL_s       dL_r            d(mean of L_s), dL for even batches
        False             False       L      dL               dL              dL / P
        False             True        L_r    see below        dL_r            not the gradient of a loss

    Without ``gather_with_grad``, which is OpenCLIP's default, gradients are not sent to other ranks. Without
    ``local_loss`` encoders then receive 1 / P of the gradient, but logit_scale all of it: write gather_with_grad=True.
    With ``local_loss`` a feature receives a gradient as an anchor only. What it should receive as a candidate is lost,
    on its own rank too, and no factor brings it back.

    Args:
        local_loss: bool. Return the mean over the pairs of this rank. Without effect in one process.
        gather_with_grad: bool. Send gradients to the ranks whose features caused them. Without effect in one process.
        cache_labels: bool. Keep the labels of ``get_ground_truth`` in ``labels``.
        rank: int, the number of this process.
        world_size: int, the number of processes; 1 for the loss of the rows of this process.
        use_horovod: bool. Refused in several processes, which must be those of torch.distributed.
        process_group: the ranks, whose number is ``world_size``: "world", a process group, or a
            ``modalign.distributed.Sharding`` with its settings. Unset, it is "world" for ``world_size`` > 1, and
            otherwise this process, with a warning once where there are others; "self" is this process without one. The
            original does not have it.

    Memory:
        O(n d) in one process. In several, O(N d), or O(n d) around a ring, for large batches or ``way="ring"`` of a
        ``Sharding``. A rank computes 8 n_r N d FLOPs, and 12 n_r N d with local_loss and without gather_with_grad.

    Raises:
        NotImplementedError: use_horovod with world_size > 1.
        ValueError: a scale or bias with more than one element, a rank or world_size that torch.distributed does not
            have, and what ``modalign.info_nce`` refuses.
        RuntimeError: torch.distributed is not initialised, or another rank does not take part.

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
        *,
        process_group: ProcessGroup = "unset",
    ) -> None:
        super().__init__()
        if world_size > 1 and use_horovod:
            raise NotImplementedError(
                f"ClipLoss: use_horovod must be False for world_size={world_size}: rows travel through "
                "torch.distributed. Start the processes with torchrun and call torch.distributed.init_process_group()"
            )
        require_process_group("ClipLoss", process_group)
        self.local_loss, self.gather_with_grad, self.cache_labels = local_loss, gather_with_grad, cache_labels
        self.rank, self.world_size, self.use_horovod = rank, world_size, use_horovod
        self.process_group = copied_as_it_is(process_group)
        self.prev_num_logits = 0
        self.labels: dict[torch.device, Tensor] = {}

    def get_ground_truth(self, device: torch.device, num_logits: int) -> Tensor:
        """Return the column of each row's pair in ``get_logits``, from ``labels`` if they are kept there."""
        if self.prev_num_logits == num_logits and device in self.labels:
            return self.labels[device]
        first = num_logits * self.rank if self.world_size > 1 and self.local_loss else 0
        labels = torch.arange(first, first + num_logits, device=device)
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
        """Return the logits of images and of texts, in the dtype of the features.

        They are (N, N), and with ``local_loss`` (n, N) for the rows of this rank. Without ``local_loss`` the original
        adds logit_bias twice in several processes.
        """
        images, texts = image_features, text_features
        if self.world_size > 1:
            images, texts = self._all_features(image_features, text_features)
        rows = image_features if self.local_loss else images
        logits = logit_scale * rows @ texts.T
        text_logits = logit_scale * text_features @ images.T if self.local_loss else logits.T
        if logit_bias is None:
            return logits, text_logits
        return logits + logit_bias, text_logits + logit_bias

    def _all_features(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of all ranks, with the gradients that the original keeps."""
        gathered = Gathered.of(self._party(), torch.stack([images, texts], 1), "get_logits")
        everyone = gathered.rows
        if not self.gather_with_grad:
            everyone = everyone.detach()
            if not self.local_loss:
                own, other = torch.stack([images, texts], 1), everyone
                everyone = torch.cat([other[: gathered.own.start], own, other[gathered.own.stop :]])
        all_images, all_texts = everyone.unbind(1)
        return all_images, all_texts

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        images, texts, operation = image_features, text_features, "ClipLoss"
        if self.world_size == 1:
            group = _alone(operation, self.process_group, self.rank)
            scale, bias = _numbers(operation, images, texts, scale=logit_scale, bias=logit_bias)
            loss = info_nce(images, texts, temperature=1 / scale, normalize=False, process_group=group)
        else:
            party = self._party()
            scale, bias = party.checked(lambda: _numbers(operation, images, texts, scale=logit_scale, bias=logit_bias))
            mean = self._mean_of_own_pairs if self.local_loss else self._mean_of_all_pairs
            loss = mean(party, images, texts, scale)
        if isinstance(bias, Tensor):
            # a trained bias stays in the graph, as distributed training wants, with the gradient it has: zero
            loss = loss + 0 * bias.to(loss.dtype)
        return {"contrastive_loss": loss} if output_dict else loss

    def _mean_of_all_pairs(self, party: Party, images: Tensor, texts: Tensor, scale: float | Tensor) -> Tensor:
        if not self.gather_with_grad:  # every rank differentiates its own features alone, not P times their sum
            images, texts = (damp_gradient(rows, 1 / self.world_size) for rows in (images, texts))
        loss: Tensor = info_nce(images, texts, temperature=1 / scale, normalize=False, process_group=party)
        return loss

    def _mean_of_own_pairs(self, party: Party, images: Tensor, texts: Tensor, scale: float | Tensor) -> Tensor:
        if self.gather_with_grad:
            return mean_or_zero(info_nce_of_own_pairs(party, (images, texts), scale))

        def one_way(anchors: Tensor, candidates: Tensor) -> Tensor:
            # a temperature for each anchor, which has the gradient of the anchor's loss
            dtype, device = accumulator(anchors.dtype), anchors.device
            temperature = 1 / torch.as_tensor(scale, dtype=dtype, device=device).expand(anchors.shape[0])
            losses: Tensor = info_nce(
                anchors,
                candidates.detach(),
                temperature=temperature,
                normalize=False,
                direction="x_to_y",
                reduction="none",
                process_group=party,
            )
            return mean_or_zero(losses)

        return (one_way(images, texts) + one_way(texts, images)) / 2

    def _party(self) -> Party:
        party = _party_of_world("ClipLoss", self.process_group, rank=self.rank, world_size=self.world_size)
        return party.describing(local_loss=bool(self.local_loss), gather_with_grad=bool(self.gather_with_grad))


class SigLipLoss(nn.Module):
    """OpenCLIP's ``SigLipLoss``: every pair of an image and a text is a binary classification.

    With z_ij = 1 for a pair and -1 otherwise, and the sum over the n images i of this process and all texts j,

        loss = 1/n sum_ij log(1 + exp(-z_ij (logit_scale * <image_features_i, text_features_j> + logit_bias)))

    ``loss(image_features, text_features, logit_scale, logit_bias, output_dict=False)`` takes

        image_features, text_features: (n, d) tensors, used as they are (OpenCLIP's models normalise them).
        logit_scale: positive float or tensor with one element, whose gradient is exact.
        logit_bias: float, tensor with one element, or None for 0; its gradient is exact.
        output_dict: bool. Return ``{"contrastive_loss": loss}``.

    and returns the loss, float64 for float64 features and float32 otherwise (the original keeps half precision). The
    loss does not call ``get_logits`` and ``get_ground_truth``, which are there for code that calls them.

    With ``world_size`` > 1, rank r passes its rows and returns L_r, the loss of its images. Its features receive the
    gradient of the sum over ranks of L_s, and logit_scale and logit_bias that of L_r, as in the original. The mean over
    ranks that DDP takes is the gradient of the mean of L_s, which for even batches is the loss of one process with the
    whole batch.

    Args:
        cache_labels: without effect, as in the original.
        rank: int, the number of this process.
        world_size: int, the number of processes; 1 for the loss of the rows of this process.
        dist_impl: "bidir", "shift", "reduce", "gather" or None: four ways to the same loss. Here the first two pass
            texts around a ring, and the others gather them. None takes what suits the batch.
        process_group: the ranks, as in ``ClipLoss``; the settings of a ``modalign.distributed.Sharding`` stand above
            ``dist_impl``. The original does not have it.

    Memory:
        O(n d) in one process and around a ring, O(N d) for N gathered texts.

    Raises:
        ValueError: an unknown dist_impl, a scale or bias with more than one element, a rank or world_size that
            torch.distributed does not have, and what ``modalign.sigmoid_loss`` refuses.
        RuntimeError: torch.distributed is not initialised, or another rank does not take part.

    Source:
        open_clip_torch 3.3.0; Zhai et al. 2023 (arXiv:2303.15343).

    Examples:
        >>> import torch
        >>> from modalign.losses.drop_ins import SigLipLoss
        >>> image, text = torch.eye(4), torch.eye(4)
        >>> round(SigLipLoss()(image, text, torch.tensor(2.0), torch.tensor(-1.0)).item(), 4)  # 4 log(1 + exp(-1))
        1.253
    """

    def __init__(
        self,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        dist_impl: str | None = None,
        *,
        process_group: ProcessGroup = "unset",
    ) -> None:
        super().__init__()
        one_of("SigLipLoss", "dist_impl", dist_impl, tuple(WAYS))
        require_process_group("SigLipLoss", process_group)
        self.cache_labels, self.rank, self.world_size = cache_labels, rank, world_size
        self.dist_impl = dist_impl or "bidir"
        self.process_group = copied_as_it_is(process_group)
        if world_size > 1 and not isinstance(process_group, Sharding) and process_group != "self":
            group = "world" if process_group == "unset" else process_group
            self.process_group = Sharding(group, way=WAYS[dist_impl])
        self.prev_num_logits = 0
        self.labels: dict[torch.device, Tensor] = {}

    def get_ground_truth(
        self, device: torch.device, dtype: torch.dtype, num_logits: int, negative_only: bool = False
    ) -> Tensor:
        """Return z (n, n), all -1 with ``negative_only``."""
        labels = torch.full((num_logits, num_logits), -1.0, device=device, dtype=dtype)
        return labels if negative_only else labels.fill_diagonal_(1.0)

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None = None,
    ) -> Tensor:
        """Return the logits (n, m) of images and texts of this process, in the dtype of the features."""
        logits = logit_scale * image_features @ text_features.T
        return logits if logit_bias is None else logits + logit_bias

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: float | Tensor,
        logit_bias: float | Tensor | None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        images, texts, operation = image_features, text_features, "SigLipLoss"
        if self.world_size == 1:
            group = _alone(operation, self.process_group, self.rank)
            scale, bias = _numbers(operation, images, texts, scale=logit_scale, bias=logit_bias)
            loss = sigmoid_loss(images, texts, temperature=1 / scale, bias=bias, normalize=False, process_group=group)
        else:
            party = _party_of_world(operation, self.process_group, rank=self.rank, world_size=self.world_size)
            scale, bias = party.checked(lambda: _numbers(operation, images, texts, scale=logit_scale, bias=logit_bias))
            loss = mean_or_zero(sigmoid_loss_of_own_pairs(party, (images, texts), scale, bias))
        return {"contrastive_loss": loss} if output_dict else loss


def _party_of_world(operation: str, process_group: ProcessGroup, *, rank: int, world_size: int) -> Party:
    """Return the ranks of a loss that was told its rank and their number."""
    party = party_of_losses(operation, process_group)
    there = (party.group.rank(), party.group.size())

    def require_there() -> None:
        if there != (rank, world_size):
            raise ValueError(
                f"{operation}: rank and world_size must be those of the process group, {there[0]} and {there[1]}, got "
                f"{rank} and {world_size}"
            )

    party.checked(require_there)
    return party


def _alone(operation: str, process_group: ProcessGroup, rank: int) -> str:
    """Return the process group of a loss with a world_size of 1."""
    named = isinstance(process_group, str) and process_group in ("unset", "self")
    if not named and count_processes() > 1:  # a group that was given has one process
        _party_of_world(operation, process_group, rank=rank, world_size=1)
    return alone(operation, process_group, "rank= and world_size=")


def _numbers(
    operation: str, images: Tensor, texts: Tensor, *, scale: float | Tensor, bias: float | Tensor | None
) -> tuple[float | Tensor, float | Tensor]:
    """Return scale and bias as numbers or tensors without dimensions, or refuse an argument."""
    require_rows(operation, image_features=images, text_features=texts)
    scale = positive_number(operation, "logit_scale", scale, images)
    if isinstance(scale, Tensor):
        scale = scale.to(accumulator(images.dtype))
    if not isinstance(bias, Tensor):
        return scale, 0.0 if bias is None else number(operation, "logit_bias", bias)
    if bias.numel() != 1:
        raise ValueError(f"{operation}: logit_bias must have one element, got shape {tuple(bias.shape)}")
    return scale, bias.reshape(())
