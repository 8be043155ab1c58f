"""Information of two modalities about a label: redundancy, uniqueness and synergy, exact or from samples.

joint         the exact decomposition of a discrete joint distribution: ``pid_of_joint``
estimate      estimates from samples: ``pid``, ``mutual_information``, ``co_information``
regimes       whether alignment or prediction recovers what the modalities share: ``regime``
inputs        checks of labels and features
classifiers   codes of modalities: out-of-fold class probabilities and their clusters
tables        tables of codes and classes, what chance explains of them, and samples of items
parts         redundant, unique and synergistic parts of tables, and their intervals
batch         the neural coupling behind ``pid(..., method="batch")``

The room knows arrays and labels only: no files, no metrics, no training of encoders come in.
"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
