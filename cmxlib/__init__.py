"""cmxlib: lock a ConvMixer with a secret key, and find out what that is worth.

The public names below are imported on first use, so ``import cmxlib`` itself stays quick.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "SecretKey": "lock.keys",
    "PatchCipher": "lock.patch",
    "encrypt_model": "lock.model",
    "decrypt_model": "lock.model",
    "ConvMixer": "learn.convmixer",
    "load_dataset": "learn.data",
    "fit": "learn.train",
    "trained_model": "study.scales",
    "logits": "learn.evaluate",
    "accuracy": "learn.evaluate",
    "key_trials": "learn.evaluate",
}
__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'cmxlib' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *__all__])
