"""The forward pass of a large batch in chunks, with the memory of a small batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modalign.common.checks import whole_number
from modalign.distributed.agreement import agree, refuse

__all__ = ["chunked_forward"]


def chunked_forward(encoder: Callable[..., object], *inputs: object, chunk_size: int) -> Any:
    """Compute ``encoder(*inputs)`` in chunks of rows and keep only inputs and embeddings until the backward pass.

    For chunks x_1, ..., x_C with embeddings z_c = f(x_c; w), a loss L of all embeddings has the gradients

        dL/dw = sum_c (dz_c/dw)' dL/dz_c        dL/dx_c = (dz_c/dx_c)' dL/dz_c

    dL/dz_c needs the embeddings of the whole batch but no activation of the encoder, and the rest of each term needs
    the activations of its chunk alone. So the first pass drops the activations, and the backward pass runs each chunk
    once more, with the random state and the autocast settings that it had, when its term is due. The gradients are
    those of the whole batch, not those of smaller batches: every row meets all others in L. The cost is one more
    forward pass.

    Args:
        encoder: a module or function that treats rows independently and depends on its inputs, its parameters and the
            random state alone: it runs twice. Data that it reads besides its inputs is not split: bind it with a
            lambda.
        inputs: the encoder's arguments: tensors (n, ...), or dicts, tuples and lists of them, nested or not, which are
            split along their first dimension. Other values (None, strings, numbers) go to every chunk unchanged.
            Mappings reach the encoder as plain dicts.
        chunk_size: int, the largest number of rows in a chunk, at least 1. The last chunk may be smaller; with n or
            more there is one chunk.

    Returns:
        The encoder's output for all rows: a tensor (n, ...), or a dict, tuple or list of them.

    Many processes:
        Pass the module that DistributedDataParallel or ``fully_shard`` returned, not the one inside. The gradients of
        all chunks meet before they travel: a step reduces each of DDP's buckets and each of FSDP's groups of parameters
        once, whatever the number of chunks. FSDP collects parameters anew for every chunk, and DDP sends its buffers,
        so the ranks of such a module agree on a number of chunks: that of the rank with most rows. One with fewer rows
        makes smaller chunks, or runs the encoder without rows. The ranks must call the function alike.

    Randomness:
        Dropout draws its masks chunk by chunk: repeatable from a seed, and equal to the masks of the whole batch if
        chunk_size >= n. Batch normalisation in training mode does not treat rows independently: it uses the statistics
        of its chunk, and updates its running averages in both passes. Use layer or group normalisation, or ``eval()``.
        Under ``torch.no_grad`` nothing is kept and nothing runs twice.

    Memory:
        Inputs, embeddings, and the activations of one chunk instead of those of n rows.

    Raises:
        TypeError: chunk_size is not an integer, or the encoder's output is not made of tensors.
        ValueError: chunk_size < 1, inputs without a tensor, tensors without rows or with different numbers of rows, or
            an encoder that returns another number of rows than it received.

    Source:
        GradCache, Gao et al. 2021 (arXiv:2101.06983); recomputation, Chen et al. 2016 (arXiv:1604.06174), through
        ``torch.utils.checkpoint``.

    Examples:
        >>> import torch
        >>> from modalign import chunked_forward, info_nce
        >>> image, text = torch.nn.Linear(6, 4), torch.nn.Linear(5, 4)
        >>> pixels, words = torch.randn(10, 6), torch.randn(10, 5)
        >>> x = chunked_forward(image, pixels, chunk_size=3)
        >>> y = chunked_forward(text, words, chunk_size=3)
        >>> info_nce(x, y).backward()
        >>> whole, = torch.autograd.grad(info_nce(image(pixels), text(words)), image.weight)
        >>> torch.allclose(image.weight.grad, whole, atol=1e-6)
        True
    """
    groups = [] if torch.compiler.is_compiling() else _groups_of(encoder)
    try:
        chunk_size = whole_number("chunked_forward", "chunk_size", chunk_size, least=1)
        rows = _count_rows(inputs)
    except (TypeError, ValueError) as error:
        _refuse(groups, error)
        raise
    chunks = _chunks(groups, rows, chunk_size)
    devices = _devices(encoder)

    def embed(chunk: tuple[object, ...], _: list[Tensor]) -> object:
        return encoder(*chunk)

    outputs = []
    for chunk in chunks:
        output = checkpoint(embed, _map(itemgetter(chunk), inputs), devices, use_reentrant=False)
        _require_rows(output, chunk.stop - chunk.start)
        outputs.append(output)
    return _concatenate(outputs)


def _refuse(groups: Sequence[dist.ProcessGroup], error: Exception) -> None:
    """Tell the other ranks of all groups that this one gives up."""
    for group in groups:
        refuse(group, error)


def _chunks(groups: Sequence[dist.ProcessGroup], rows: int, chunk_size: int) -> list[slice]:
    """Return the rows of every chunk, at least one chunk, and as many on all ranks that an encoder runs on together."""
    most = rows
    for number, group in enumerate(groups):
        try:
            everyone = agree("chunked_forward", group, {"rows": most, "chunk_size": chunk_size})
        except (ValueError, RuntimeError) as error:
            _refuse(groups[number + 1 :], error)
            raise
        most = max(int(str(one["rows"])) for one in everyone)
    count = max(math.ceil(most / chunk_size), 1)
    size = chunk_size if most == rows else math.ceil(rows / count)
    # without rows a chunk is empty, and the encoder decides what it gives
    return [slice(min(i * size, rows), min((i + 1) * size, rows)) for i in range(count)]


def _groups_of(encoder: Callable[..., object]) -> list[dist.ProcessGroup]:
    """Return the groups whose ranks wait for each other whenever a module runs."""
    if not isinstance(encoder, nn.Module) or not (dist.is_available() and dist.is_initialized()):
        return []
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor
    from torch.nn.parallel import DistributedDataParallel

    groups: dict[str, dist.ProcessGroup] = {}
    for module in encoder.modules():
        if isinstance(module, DistributedDataParallel) and next(module.buffers(), None) is not None:
            groups[module.process_group.group_name] = module.process_group
        elif isinstance(module, FSDPModule):
            meshes = [parameter.device_mesh for parameter in module.parameters() if isinstance(parameter, DTensor)]
            groups |= {group.group_name: group for mesh in meshes[:1] for group in mesh.get_all_groups()}
    return list(groups.values())


def _devices(encoder: Callable[..., object]) -> list[Tensor]:
    """Return an empty tensor on each device of a module.

    ``checkpoint`` keeps the random states of its arguments' devices alone, and an encoder may move its inputs to
    another device.
    """
    if not isinstance(encoder, nn.Module):
        return []
    devices = {tensor.device for group in (encoder.parameters(), encoder.buffers()) for tensor in group}
    return [torch.empty(0, device=device) for device in sorted(devices, key=str)]


def _count_rows(inputs: tuple[object, ...]) -> int:
    tensors = list(_tensors(inputs))
    if not tensors:
        raise ValueError("chunked_forward: the inputs hold no tensor to split")
    for tensor in tensors:
        if tensor.layout not in (torch.strided, torch.sparse_coo):
            raise TypeError(
                f"chunked_forward: every tensor in the inputs must be dense or sparse_coo, got layout {tensor.layout}. "
                "Only these can be cut into rows"
            )
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if not all(shapes):
        raise ValueError(f"chunked_forward: every tensor in the inputs needs rows (n, ...), got shapes {shapes}")
    if len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"chunked_forward: the inputs must have one number of rows, got shapes {shapes}")
    return shapes[0][0]


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors of a structure of mappings, tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _map(function: Callable[[Tensor], Tensor], value: object) -> Any:
    """Return the structure with the function applied to its tensors."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _map(function, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return _sequence(value, [_map(function, item) for item in value])
    return value


def _sequence(like: tuple[Any, ...] | list[Any], items: list[Any]) -> Any:
    """Return the items in a list, tuple or named tuple, as ``like`` is."""
    if isinstance(like, list):
        return items
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)


def _require_rows(output: object, rows: int) -> None:
    for tensor in _tensors(output):
        if tensor.ndim == 0 or tensor.shape[0] != rows:
            raise ValueError(
                f"chunked_forward: the encoder must return one row for each of its {rows} input rows, "
                f"got shape {tuple(tensor.shape)}"
            )


def _concatenate(outputs: list[Any]) -> Any:
    """Return the structure of the first output with the tensors of all outputs concatenated."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(outputs)
    if isinstance(first, Mapping):
        return {key: _concatenate([output[key] for output in outputs]) for key in first}
    if isinstance(first, (tuple, list)):
        return _sequence(first, [_concatenate(list(items)) for items in zip(*outputs, strict=True)])
    raise TypeError(
        f"chunked_forward: the encoder must return a tensor or a dict, tuple or list of tensors, "
        f"got {type(first).__name__}"
    )
