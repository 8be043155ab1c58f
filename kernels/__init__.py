"""Triton kernels, imported only by name from the operators' tables: see README.md beside this file."""
