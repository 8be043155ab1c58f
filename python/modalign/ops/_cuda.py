"""The compiled CUDA kernels seen from torch: contiguous device memory and torch's current stream in."""

from __future__ import annotations

import torch
from torch import Tensor

from modalign import _cuda


def neighbor_overlap(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.contiguous(), b.contiguous()
    n, k = a.shape
    counts = torch.empty(n, k, dtype=torch.int32, device=a.device)
    stream = torch.cuda.current_stream(a.device)
    _cuda.neighbor_overlap(a.data_ptr(), b.data_ptr(), n, k, counts.data_ptr(), stream.device_index, stream.cuda_stream)
    return counts
