"""The data, the encoders and the check that the scripts of this folder share.

Every script trains the same encoders on the same global batches, so that all of them must end with the parameters that
one process without ``torch.distributed`` finds.
"""

import math
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

import modalign

EPOCHS, BATCH = 10, 383  # of 1,150 rows: the last of four batches has one row, so that one rank of two has none
# Steps of SGD, unlike those of Adam, grow with the gradient, so that parameters show gradients that are too large
LEARNING_RATE, TOLERANCE = 0.005, 1e-5
EMOJI = modalign.data.emoji("image-text")  # drawings and names of 1,644 emoji, as features of two frozen encoders


class Towers(nn.Module):
    """An encoder of images and an encoder of texts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)  # the same parameters on every rank
        self.image = nn.Sequential(nn.Linear(128, 96), nn.GELU(), nn.Linear(96, 32))
        self.text = nn.Sequential(nn.Linear(128, 96), nn.GELU(), nn.Linear(96, 32))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return self.image(images), self.text(texts)


class Share(Sampler[Tensor]):
    """The rows of one rank, of every batch of an epoch.

    All ranks draw the same order, and divide each batch among them. The last batch of an epoch is smaller, and the
    shares of its rows differ by one or are empty. ``DistributedSampler`` would repeat rows to make them even, and a
    repeated row is a negative of itself.
    """

    def __init__(self, rows: int, rank: int, ranks: int) -> None:
        self.rows, self.rank, self.ranks = rows, rank, ranks
        self.generator = torch.Generator().manual_seed(0)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in torch.randperm(self.rows, generator=self.generator).split(BATCH):
            yield batch[self.rank :: self.ranks]

    def __len__(self) -> int:
        return math.ceil(self.rows / BATCH)


def batches(rank: int = 0, ranks: int = 1) -> DataLoader:
    """Return the loader of a rank's share of the training pairs: images (n_r, 128) and texts (n_r, 128)."""
    images, texts = pairs(modalign.data.TRAIN)
    return DataLoader(TensorDataset(images, texts), batch_size=None, sampler=Share(len(images), rank, ranks))


def pairs(part: int) -> tuple[Tensor, Tensor]:
    """Return the images and texts of the training, validation or test part."""
    rows = EMOJI.split == part
    return EMOJI.x[rows], EMOJI.y[rows]


def device_of_this_rank() -> torch.device:
    """Return the GPU of this rank, as torchrun numbers them, or the CPU."""
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")


def finish(towers: nn.Module, criterion: nn.Module) -> None:
    """Check the parameters on rank 0, and wait until all ranks are here, so that they leave together."""
    trained = [whole(parameter) for parameter in (*towers.parameters(), *criterion.parameters())]
    if not dist.is_initialized():
        judge(trained, type(criterion), ranks=1)
        return
    if dist.get_rank() == 0:
        judge(trained, type(criterion), ranks=dist.get_world_size())
    dist.barrier()


def judge(trained: list[Tensor], kind: type[nn.Module], ranks: int) -> None:
    """Print loss and retrieval of pairs that were not trained on, and compare all parameters with one process."""
    alone = [parameter.detach() for parameter in train_alone(kind)]
    error = max(float((one - other).abs().max()) for one, other in zip(trained, alone, strict=True))
    towers = Towers()
    with torch.no_grad():
        for parameter, value in zip(towers.parameters(), trained, strict=False):  # the last ones are the loss's
            parameter.copy_(value)
        loss, stats = modalign.info_nce(*towers(*pairs(modalign.data.TEST)), stats=True, process_group="self")
    print(f"{ranks} ranks: InfoNCE {loss:.2f}, {stats.x_accuracy:.0%} of the images find their text")
    print(f"parameters differ from those of one process by {error:.0e} at most")
    if not error < TOLERANCE:
        raise SystemExit(f"training on {ranks} ranks does not equal training in one process")


def whole(parameter: Tensor) -> Tensor:
    """Return a parameter on the CPU, collected from all ranks where it is sharded."""
    value = parameter.detach()
    return (value.full_tensor() if isinstance(value, DTensor) else value).cpu()


def train_alone(kind: type[nn.Module]) -> list[Tensor]:
    """Return the parameters that training in this process alone finds, with a loss of this kind."""
    towers, criterion = Towers(), kind(learnable=True, process_group="self")
    parameters = [*towers.parameters(), *criterion.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9)
    loader = batches()
    for _ in range(EPOCHS):
        for images, texts in loader:
            loss = criterion(*towers(images, texts))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return parameters
