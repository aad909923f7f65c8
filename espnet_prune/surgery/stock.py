"""The folder for stock ESPnet inside a saved model's, and what becomes of it with other weights.

``models.espnet.build`` writes it from a model that ``save`` writes beside it. Whoever saves another
model there replaces what it was made from.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from espnet_prune.errors import ModelError
from espnet_prune.io_torch import read_torch
from espnet_prune.models.model_folder import BPE, CONFIG, ESPNET_FOLDER, STATISTICS, WEIGHTS


def remove_outdated(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Removes the files for stock ESPnet of a saved model unless they hold these weights.

    Args:
        folder: the saved model's.
        state: the weights on the CPU, by name, that are about to be saved there.
    """
    stock = folder / ESPNET_FOLDER
    if not (stock / WEIGHTS).is_file() or _holds(stock / WEIGHTS, state):
        return
    for name in (CONFIG, BPE, STATISTICS, WEIGHTS):  # what is looked for first goes last
        (stock / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other files, which are the user's, stay
        stock.rmdir()


def _holds(path: Path, state: Mapping[str, Tensor]) -> bool:
    try:
        found = read_torch(path)
    except ModelError:
        return False
    if not isinstance(found, Mapping) or found.keys() != state.keys():
        return False
    return all(_same(found[name], value) for name, value in state.items())


def _same(one: object, other: Tensor) -> bool:
    return isinstance(one, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
