"""Batches that several ranks of torch.distributed share: exact sharded losses, and a check that P ranks equal one.

sharding       Sharding: a value of ``process_group=`` with the settings of its communication
party          the ranks that share a batch: what ``process_group=`` is resolved to
agreement      what ranks compare before any rows travel
compiled       the same for calls that torch.compile has compiled
ranks          the rows of each rank, and the blocks of S that it computes
transport      rows and gradients on the wire, gathered at once or around a ring
wire           tables in the dtype in which they travel
calls          the ranks and settings of one call of an operator
info_nce, sigmoid_loss   the sharded operators of the losses
rows           rows and numbers of all ranks, with their derivatives
checker        check: a training step on the ranks against one process; ``__main__`` is its command
stepping       one run of the step: loss, gradients, items and random draws
single_process   the process with one rank
watched        work of all ranks at once, in which a lost rank is an error
draws          random draws of a rank as parts of those of one process
comparing      the gradients of all ranks against those of one process
findings, advice, report   what was found, what it usually means, and how it is printed
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
