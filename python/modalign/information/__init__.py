"""Information of two modalities about a label: redundancy, uniqueness and synergy, exact or from samples.

joint         the exact decomposition of a discrete joint distribution: ``pid_of_joint``
estimate      estimates from samples: ``pid``, ``mutual_information``, ``co_information``
regimes       whether alignment or prediction recovers what the modalities share: ``regime``
inputs        checks of labels and features
models        the classifiers that are tried
predictions   class probabilities from the best of them, out of fold and calibrated, and what it may still learn
codes         codes of modalities: clusters of predictions or of features
tables        tables of codes and classes, what chance explains of them, and samples of items
parts         redundant, unique and synergistic parts of tables, and their intervals
shortfall     what codes hold less than modalities, and the parts and intervals that reckon with it
notes         sentences on what limits an estimate
batch         the neural coupling behind ``pid(..., method="batch")``

The room knows arrays and labels only: no files, no metrics, no training of encoders come in.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
