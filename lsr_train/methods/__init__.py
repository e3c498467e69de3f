"""The training methods by name. A new one is a file beside these and a line here.

One of your own needs none: a class in a file (`--method FILE.py:CLASS`), or an entry point of an installed package.
"""

import importlib.util
from importlib.metadata import entry_points
from pathlib import Path

from lsr_infer.errors import InputError
from lsr_train.config.methods import ENTRY_POINTS
from lsr_train.methods.adversarial import AdaptSegNetFeat, SAPNet
from lsr_train.methods.distill import Distill
from lsr_train.methods.entropy import MaxSquareIW, MinEnt
from lsr_train.methods.lsr import LSR, LSREM
from lsr_train.methods.method import Method, Network
from lsr_train.methods.oce import OCE
from lsr_train.methods.self_training import LSRSelfTraining, SelfTraining
from lsr_train.methods.source_only import SourceOnly

__all__ = ["METHODS", "Method", "Network", "method_class"]

METHODS: dict[str, type[Method]] = {
    "source-only": SourceOnly,
    "target-only": SourceOnly,  # its source is the labelled split of the target: the upper bound of mASR (Eq. 9)
    "adaptsegnet-feat": AdaptSegNetFeat,
    "minent": MinEnt,
    "sapnet": SAPNet,
    "maxsquare-iw": MaxSquareIW,
    "oce": OCE,
    "lsr": LSR,
    "lsr-em": LSREM,
    "self-training": SelfTraining,
    "lsr-st": LSRSelfTraining,
    "distill": Distill,
}


def method_class(name: str) -> type[Method]:
    """Return a method by its name in the configuration.

    Args:
        name: a key of `METHODS`, an entry point of the group `lsr_train.methods`, or FILE.py:CLASS.

    Raises:
        InputError: the file or package cannot be loaded, or what it holds is no `Method`.
    """
    if name in METHODS:
        return METHODS[name]
    try:
        found = _from_file(*name.rsplit(":", 1)) if ".py:" in name else _from_package(name)
    except Exception as error:  # whatever a foreign file does
        raise InputError(f"method {name} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InputError(f"method {name} is {found!r}; needed: a subclass of lsr_train.methods.Method.")
    return found


def _from_file(file: str, attribute: str) -> object:
    """Run a file as a module of its own and return what it calls by that name."""
    spec = importlib.util.spec_from_file_location(f"lsr_train_method_{Path(file).stem}", Path(file).resolve())
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: object = getattr(module, attribute)
    return found


def _from_package(name: str) -> object:
    """Return what an installed package offers by that name."""
    found: object = entry_points(group=ENTRY_POINTS)[name].load()
    return found
