"""Benchmarks that need a GPU; ``make gpu`` runs gpu.sh, which tests the kernels on the device and then measures them.

    gpu.sh   the tests of the GPU kernels, the installation of rivals, and the benchmark
    run      the benchmark: answers are checked, then candidates take turns in one process
    cases    the losses and k-NN graphs that are measured, and their rivals

``run --device cpu --small`` runs everything at small sizes on a machine without a GPU.
"""
