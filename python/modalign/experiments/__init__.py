"""Experiments: train encoders with an alignment term of chosen strength, and study what alignment does to them.

    sweep/               every case of a configuration at every strength and seed: training, the folder, its results
    studies/             the published studies, each with its claims and verdicts
    configs/             packaged configurations of sweeps
    tuning               search for the best strength of each modality with fewer runs than a grid
    gaussian_process     the model of accuracy against strength that the search draws from
    advice               the range of strengths that pairs with the same information suggest

Experiments write tables and verdicts. They know nothing of HTML, pictures or terminals: ``report`` draws what they
wrote, ``cli`` prints it, and ``common.progress`` shows how far they are. No loss, metric or data set is defined here.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
