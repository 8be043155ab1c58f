"""What two modalities tell about a label: redundancy, uniqueness and synergy, exact or from samples.

joint       exact, of a discrete joint distribution
estimate    from samples: ``pid``, ``mutual_information``, ``co_information``
batch       the neural estimator behind ``pid(..., method="batch")``
regimes     whether alignment or prediction recovers what the modalities share"""

from modalign.aliases import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
