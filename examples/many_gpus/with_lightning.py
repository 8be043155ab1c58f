"""Lightning: the Trainer starts the processes, wraps the module in DDP and runs the loop.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 examples/many_gpus/with_lightning.py

The package ``lightning`` has the same classes as ``pytorch_lightning``.
"""

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import modalign
from two_towers import EPOCHS, LEARNING_RATE, Towers, batches, finish


class Alignment(lightning.LightningModule):
    """Two towers with their loss, whose temperature DDP then holds, too."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = Towers()
        self.criterion = modalign.InfoNCE(learnable=True, process_group="world")

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return self.criterion(*self.towers(*batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=LEARNING_RATE, momentum=0.9)

    def train_dataloader(self) -> DataLoader:
        return batches(self.trainer.global_rank, self.trainer.world_size)


def main() -> None:
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=2,
        strategy="ddp",
        max_epochs=EPOCHS,
        use_distributed_sampler=False,  # it would repeat rows, so that all ranks have as many
        barebones=True,
    )
    model = Alignment()
    trainer.fit(model)
    finish(model.towers, model.criterion)


if __name__ == "__main__":
    main()
