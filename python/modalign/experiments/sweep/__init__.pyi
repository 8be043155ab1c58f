from .comparison import Difference as Difference
from .comparison import compare as compare
from .config import Sweep as Sweep
from .config import dump as dump
from .config import load as load
from .config import parse as parse
from .findings import Finding as Finding
from .results import Results as Results
from .results import read as read
from .runner import run as run
from .trackers import log_runs as log_runs

__all__: list[str]
