"""Stands in for ``torchaudio`` where it can't be imported.

ESPnet imports it at the top of its tasks, but no model with the default front-end uses it, and its
published build needs CUDA libraries. Whoever does use something of it gets an error that says so.
"""

import importlib
import importlib.machinery
import sys
import types

SUBMODULES = ("functional", "transforms", "compliance", "compliance.kaldi", "models", "pipelines")


def _missing(path: str):
    def attribute(name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(
            f"{path}.{name} is needed, but torchaudio can't be imported here; install a torchaudio "
            "that fits this torch, or use ESPnet's default front-end"
        )

    return attribute


def _stub(name: str) -> types.ModuleType:
    module = types.ModuleType(name, __doc__)
    module.__path__ = []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__version__ = "0.0.0"
    module.__getattr__ = _missing(name)
    return module


def ensure_torchaudio() -> None:
    """Makes ``import torchaudio`` work; call it before any import of ESPnet's tasks."""
    if "torchaudio" in sys.modules:
        return
    try:
        importlib.import_module("torchaudio")
        return
    except (ImportError, OSError):
        pass
    sys.modules["torchaudio"] = _stub("torchaudio")
    for name in SUBMODULES:
        parent, _, child = f"torchaudio.{name}".rpartition(".")
        module = _stub(f"torchaudio.{name}")
        sys.modules[f"torchaudio.{name}"] = module
        setattr(sys.modules[parent], child, module)
