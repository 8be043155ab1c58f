"""A sweep: encoders trained with task + strength * InfoNCE for every case, strength and seed of a configuration.

    config        the YAML configuration, typed, with every default filled in
    mistakes      one sentence for each mistake in a configuration
    cases         data sets loaded and checked against the settings before anything trains
    draws         the data of a case: one set, or one for every seed
    memory        how many runs train together within the memory that is allowed
    chunks        runs of one case that train together: cut, trained with checkpoints, measured
    training      the training loop over all runs of a chunk at once
    stacked       many copies of a module called at once
    tasks         losses and scores of classification, regression and multilabel tasks
    randomness    every random choice as a function of the run's seed
    folder        the files of a sweep on disk
    earlier       folders of modalign 0.1.0, recognised by their files
    schema        columns of runs.parquet and curves.parquet
    runner        a whole sweep: chunks on threads, tables, resuming
    cluster       the same chunks on a Ray cluster
    trackers      finished runs for TensorBoard and Weights & Biases
    results       a finished folder, read and checked
    statistics    intervals over seeds, the best strength, the trend
    findings      the effect of the strength on each modality and on the fused model
    comparison    two finished sweeps side by side

The files down to ``cluster`` train and write, the others read what was written. Drawing and printing belong to
``report`` and ``cli``; questions about many sweeps belong to ``experiments.studies``.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
