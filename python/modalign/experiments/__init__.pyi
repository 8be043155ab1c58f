from .tuning import Budget as Budget
from .tuning import Optimum as Optimum

__all__: list[str]
