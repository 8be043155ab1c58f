from .approximate import approximate_knn as approximate_knn
from .block_size import bytes_of as bytes_of
from .blocks import knn_out_of_core as knn_out_of_core
from .functional import knn as knn
from .functional import neighbor_overlap as neighbor_overlap
from .graph import Certificate as Certificate
from .graph import Neighbors as Neighbors

__all__: list[str]
