"""PyTorch files that are whole or absent, and read without running code from them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from espnet_prune.errors import ModelError
from espnet_prune.io_atomic import atomic_path


def write_torch(value: Any, path: str | os.PathLike, save: Callable = torch.save) -> None:
    """Writes a ``.pth`` file atomically, on the disk before it gets its name.

    PyTorch writes through an open file here: given a path it hides the system's error behind a
    ``RuntimeError`` about streams, and a full disk couldn't be told from a bug.

    Args:
        value: what ``torch.save`` takes.
        path: the file.
        save: PyTorch's own function, where the caller has replaced it.

    Raises:
        EnvironmentProblem: the disk is full.
    """
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as file:
                save(value, file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # raised when PyTorch closes an archive cut short
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read_torch(path: str | Path) -> Any:
    """What a ``.pth`` file holds, on the CPU: tensors and plain values only.

    Raises:
        ModelError: the file is missing, damaged, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.PickleError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: can't be read as weights ({reason})") from error
