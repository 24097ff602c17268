"""OSASIS: one-shot, structure-aware image stylization. Public names are loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osasis.base import Base, bundled_bases, load_base
    from osasis.checkpoint import Style, load_style
    from osasis.errors import OsasisError
    from osasis.pipeline import StylePipeline, train_style
    from osasis.settings import StylizeConfig, TextConfig, TrainConfig
    from osasis.strength import mix

__version__ = "0.1.0"

__all__ = [
    "Base", "OsasisError", "Style", "StylePipeline", "StylizeConfig", "TextConfig", "TrainConfig",
    "__version__", "bundled_bases", "load_base", "load_style", "mix", "train_style",
]  # fmt: skip

_HOME = {
    "Base": "base",
    "OsasisError": "errors",
    "Style": "checkpoint",
    "StylePipeline": "pipeline",
    "StylizeConfig": "settings",
    "TextConfig": "settings",
    "TrainConfig": "settings",
    "bundled_bases": "base",
    "load_base": "base",
    "load_style": "checkpoint",
    "mix": "strength",
    "train_style": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
