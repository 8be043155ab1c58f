"""Triton kernels of the losses and of the nearest-neighbour search.

``losses`` holds info_nce and sigmoid_loss, ``knn`` the exact search and the overlap of neighbour lists, ``shared`` what
both use. ``ahead_of_time`` compiles every kernel without a GPU. README.md beside this file describes each kernel.

The operators in ``modalign.ops`` reach these modules by name ("module:function"); nothing else imports them. They
import torch, NumPy and Triton, and from the package only the dataclasses that the operators pass.
"""
