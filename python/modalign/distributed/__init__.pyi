from .checker import check as check
from .findings import Finding as Finding
from .report import RankCheck as RankCheck
from .sharding import Sharding as Sharding

__all__: list[str]
