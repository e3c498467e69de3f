"""Finds training methods by name, and defines `Method`, their base.

A new one is a file beside these and a line in `lsr_train.config.run`. One of your own needs neither: a class in a
file (`--method FILE.py:CLASS`), or an entry point of an installed package.
"""

import importlib.util
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError
from lsr_train.config.run import ENTRY_POINTS, METHOD_SPECS, is_foreign
from lsr_train.methods.method import Method, Network

__all__ = ["Method", "Network", "method_class"]


def method_class(name: str) -> type[Method]:
    """Return a method by its key in `METHOD_SPECS`, its entry point in the group `lsr_train.methods`, or FILE.py:CLASS.

    Raises:
        InputError: the file or package cannot be loaded, or what it holds is no `Method`.
    """
    if not is_foreign(name):
        module, _, attribute = METHOD_SPECS[name].implementation.partition(":")
        own: type[Method] = getattr(importlib.import_module(f"lsr_train.methods.{module}"), attribute)
        return own
    try:
        found = _from_file(*name.rsplit(":", 1)) if ".py:" in name else entry_points(group=ENTRY_POINTS)[name].load()
    except Exception as error:  # a foreign file may raise anything
        raise InputError(f"method {name} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"method {name} is {found!r}; needed: a subclass of lsr_train.methods.Method.")
    return found


def __getattr__(name: str) -> Any:
    """Return METHODS, the classes by name of version 0.1.0, with a warning."""
    if name != "METHODS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("lsr_train.methods.METHODS is now method_class(NAME)", DeprecationWarning, stacklevel=2)
    return {method: method_class(method) for method in METHOD_SPECS}


def _from_file(file: str, attribute: str) -> object:
    """Run a file as a module and return its attribute of that name."""
    spec = importlib.util.spec_from_file_location(f"lsr_train_method_{Path(file).stem}", Path(file).resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)
