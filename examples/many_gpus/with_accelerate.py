"""Accelerate: ``prepare`` wraps the model for the hardware that ``accelerate launch`` or torchrun found.

OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 examples/many_gpus/with_accelerate.py
"""

import torch
from accelerate import Accelerator

import modalign
from two_towers import EPOCHS, LEARNING_RATE, Towers, batches, finish


def main() -> None:
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    towers, criterion = Towers(), modalign.InfoNCE(learnable=True, process_group="world").to(accelerator.device)
    optimizer = torch.optim.SGD([*towers.parameters(), *criterion.parameters()], lr=LEARNING_RATE, momentum=0.9)
    # the loader is not prepared: it divides batches itself, and prepare would divide them once more
    towers, optimizer = accelerator.prepare(towers, optimizer)
    loader = batches(accelerator.process_index, accelerator.num_processes)
    for _ in range(EPOCHS):
        for images, texts in loader:
            loss = criterion(*towers(images.to(accelerator.device), texts.to(accelerator.device)))
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    finish(towers, criterion)
    accelerator.end_training()


if __name__ == "__main__":
    main()
