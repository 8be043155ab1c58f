"""DeepSpeed ZeRO: the engine divides the optimizer's state and the gradients among the ranks, and averages gradients.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 examples/many_gpus/with_deepspeed.py
"""

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

import modalign
from two_towers import BATCH, EPOCHS, LEARNING_RATE, Towers, batches, device_of_this_rank, finish


class Alignment(nn.Module):
    """Two towers with their loss: the engine trains the parameters of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = Towers()
        self.criterion = modalign.InfoNCE(learnable=True, process_group="world")

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        return self.criterion(*self.towers(images, texts))


def main() -> None:
    device = device_of_this_rank()
    deepspeed.init_distributed("nccl" if device.type == "cuda" else "gloo")
    model = Alignment().to(device)
    config = {
        "train_micro_batch_size_per_gpu": BATCH // dist.get_world_size(),
        "zero_optimization": {"stage": 2},
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 0.0,  # the default clips the gradient to a norm of 1
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    loader = batches(dist.get_rank(), dist.get_world_size())
    for _ in range(EPOCHS):
        for images, texts in loader:
            loss = engine(images.to(device), texts.to(device))
            engine.backward(loss)
            engine.step()
    finish(model.towers, model.criterion)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
