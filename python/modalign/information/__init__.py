"""What two modalities tell about a label: redundancy, uniqueness and synergy, exact or from samples.

joint       exact, of a discrete joint distribution
estimate    from samples: ``pid``, ``mutual_information``, ``co_information``
batch       the neural estimator behind ``pid(..., method="batch")``
regimes     whether alignment or prediction recovers what the modalities share
"""

from modalign.information.estimate import PIDEstimate, co_information, mutual_information, pid
from modalign.information.joint import Information, pid_of_joint
from modalign.information.regimes import Regime, regime

__all__ = [
    "Information",
    "PIDEstimate",
    "Regime",
    "co_information",
    "mutual_information",
    "pid",
    "pid_of_joint",
    "regime",
]
