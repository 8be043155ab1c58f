"""What the kernels of the losses and of the search share.

    launch   launching a kernel, preparing its operands, and the tile of inner products
    tiles    tile sizes as data: one row for each kernel, dtype, architecture and size

A function that only one of the rooms needs belongs in that room.
"""
