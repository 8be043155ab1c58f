from .estimate import PIDEstimate as PIDEstimate
from .estimate import co_information as co_information
from .estimate import mutual_information as mutual_information
from .estimate import pid as pid
from .joint import Information as Information
from .joint import pid_of_joint as pid_of_joint
from .regimes import Regime as Regime
from .regimes import regime as regime

__all__: list[str]
