"""Benchmarks that need a GPU; ``make gpu`` runs gpu.sh, which tests the kernels on the device and then measures them.

    gpu.sh   the tests of the GPU kernels, the installation of rivals, and the benchmark
    run      the benchmark: results are checked, then candidates take turns in one process
    cases    a case, and what all cases share
    losses   the cases of the losses
    graphs   the cases of the k-NN graphs

``python -m benchmarks.gpu.run --device cpu --small`` tests the benchmark on a machine without a GPU.
"""
