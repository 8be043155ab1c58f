from .pages.sweep import conclusions as conclusions
from .pages.sweep import draw as draw
from .pages.sweep import write as write

__all__: list[str]
