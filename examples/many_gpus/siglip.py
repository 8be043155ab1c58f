"""SigLIP's loss of a batch whose activations do not fit: ``chunked_forward`` runs the encoders on 50 rows at a time.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 examples/many_gpus/siglip.py
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import modalign
from two_towers import EPOCHS, LEARNING_RATE, Towers, batches, device_of_this_rank, finish


def main() -> None:
    device = device_of_this_rank()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    towers = DistributedDataParallel(Towers().to(device))
    criterion = modalign.SigmoidLoss(learnable=True, process_group="world").to(device)
    optimizer = torch.optim.SGD([*towers.parameters(), *criterion.parameters()], lr=LEARNING_RATE, momentum=0.9)
    loader = batches(dist.get_rank(), dist.get_world_size())
    for _ in range(EPOCHS):
        for images, texts in loader:
            x, y = modalign.chunked_forward(towers, images.to(device), texts.to(device), chunk_size=50)
            loss = criterion(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finish(towers, criterion)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
