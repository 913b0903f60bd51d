"""cmxlib: lock a ConvMixer with a secret key, and find out what that is worth.

The public names below are imported on first use, so ``import cmxlib`` itself stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what the lines below do when they run, said so that editors and type checkers see it
    from .learn.convmixer import ConvMixer as ConvMixer
    from .learn.data import Dataset as Dataset
    from .learn.data import load_dataset as load_dataset
    from .learn.evaluate import accuracy as accuracy
    from .learn.evaluate import key_trials as key_trials
    from .learn.evaluate import logits as logits
    from .learn.train import TrainSettings as TrainSettings
    from .learn.train import fit as fit
    from .lock.keys import SecretKey as SecretKey
    from .lock.model import decrypt_model as decrypt_model
    from .lock.model import encrypt_model as encrypt_model
    from .lock.patch import PatchCipher as PatchCipher
    from .study.scales import Scale as Scale
    from .study.scales import trained_model as trained_model

__version__ = "0.1.0"

_HOME = {
    "SecretKey": "lock.keys",
    "PatchCipher": "lock.patch",
    "encrypt_model": "lock.model",
    "decrypt_model": "lock.model",
    "ConvMixer": "learn.convmixer",
    "Dataset": "learn.data",
    "load_dataset": "learn.data",
    "TrainSettings": "learn.train",
    "fit": "learn.train",
    "logits": "learn.evaluate",
    "accuracy": "learn.evaluate",
    "key_trials": "learn.evaluate",
    "Scale": "study.scales",
    "trained_model": "study.scales",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'cmxlib' has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("cmxlib"):
            from .paths import need

            need(str(error.name), "book")  # raises, and says in a sentence what to install
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
