"""FSDP2: ``fully_shard`` divides parameters, gradients and the optimizer's state among the ranks.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 examples/many_gpus/fsdp2.py
"""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import modalign
from modalign.distributed import Sharding
from two_towers import EPOCHS, LEARNING_RATE, Towers, batches, device_of_this_rank, finish


def main() -> None:
    device = device_of_this_rank()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("data",))
    towers = Towers().to(device)
    for part in (towers.image, towers.text, towers):
        fully_shard(part, mesh=mesh["data"])
    criterion = modalign.InfoNCE(learnable=True, process_group=Sharding(mesh["data"], way="ring")).to(device)
    # two groups, because an optimizer updates sharded and whole parameters separately
    groups = [{"params": list(module.parameters())} for module in (towers, criterion)]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=0.9)
    loader = batches(dist.get_rank(), dist.get_world_size())
    for _ in range(EPOCHS):
        for images, texts in loader:
            loss = criterion(*towers(images.to(device), texts.to(device)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finish(towers, criterion)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
