"""Benchmarks that check their results before they time anything; every script has a ``--help``.

    compare          losses, k-NN, alignment and sweeps beside their rivals (``make bench``)
    before_after     two versions of the package in alternating processes
    speed            the page docs/speed.md from the records in results/
    accuracy         the page docs/accuracy.md: rounding errors of every backend
    validate         the coverage of intervals and nulls by simulation (``make validate``)
    information_coverage, information_cells
                     the coverage of the intervals of ``pid`` where the parts are known (``make validate``)
    scaling          time and memory of alignment by the number of items
    memory           the peak memory of one call, in a process of its own
    best_strength    searches for the best alignment strength beside a grid
    suite            the rows behind ``modalign advise``
    cases, *_cases   what compare measures; ``suites`` lists them
    load             the refusal to compare times on a loaded machine
    gpu/             benchmarks that need a GPU (``make gpu``)
    test_speed       the first case of every suite for pytest-benchmark

Nothing in the package imports this folder.
"""
