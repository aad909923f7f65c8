"""What the teacher says of every utterance, computed once and read at every update.

Each kind of output is a file of float16 rows, frame after frame and utterance after utterance;
``index.json``, written last, says where each utterance stands. Utterances go through the teacher
one by one, so that what is kept doesn't depend on batches.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from espnet_prune.errors import DataError
from espnet_prune.io_atomic import read_json, write_json
from espnet_prune.train.model_outputs import Outputs

logger = logging.getLogger(__name__)
INDEX = "index.json"
CTC, ATTENTION, LAYER = "ctc", "attention", "layer."
KIND = numpy.float16


def by_name(outputs: Outputs, layers: Sequence[int]) -> dict[str, Tensor]:
    """A teacher's outputs for one utterance, (frames or tokens, width), by name of their file."""
    named = {f"{LAYER}{layer}": outputs.hidden[layer] for layer in layers}
    named |= {CTC: outputs.ctc_logits, ATTENTION: outputs.decoded}
    return {name: value[0] for name, value in named.items() if value is not None}


def keep(outputs: Iterable[tuple[str, Mapping[str, Tensor]]], number: int, folder: Path) -> None:
    """Writes the outputs of all utterances; an interrupted one begins anew.

    Args:
        outputs: the name of each utterance, and what ``by_name`` gives.
        number: number of utterances, for the bar.
        folder: is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, BinaryIO] = {}
    widths: dict[str, int] = {}
    rows: dict[str, int] = {}
    places: dict[str, dict[str, tuple[int, int]]] = {}
    quiet = not sys.stderr.isatty()
    with contextlib.ExitStack() as stack:
        for utterance, named in tqdm(outputs, "outputs", number, leave=False, disable=quiet):
            places[utterance] = {}
            for name, value in named.items():
                if name not in files:
                    files[name] = stack.enter_context((folder / name).open("wb"))
                    widths[name] = value.shape[1]
                begin = rows.get(name, 0)
                rows[name] = begin + len(value)
                places[utterance][name] = (begin, rows[name])
                files[name].write(value.numpy().astype(KIND).tobytes())
    write_json(folder / INDEX, {"widths": widths, "utterances": places})
    size = sum(path.stat().st_size for path in folder.iterdir())
    logger.info("%s: outputs for %d utterances, %.2f GB", folder, len(places), size / 1e9)


def is_kept(folder: Path) -> bool:
    """Whether a folder is complete."""
    return (folder / INDEX).exists()


class KeptOutputs:
    """Reads what ``keep`` wrote.

    Args:
        folders: folders of the training and of the development set.

    Raises:
        DataError: a folder isn't complete, or an utterance is in two of them.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.places: dict[str, tuple[Path, dict[str, list[int]]]] = {}
        self.files: dict[Path, dict[str, numpy.ndarray]] = {}
        for folder in folders:
            index = read_json(folder / INDEX)
            self.files[folder] = {
                name: numpy.memmap(folder / name, KIND, "r").reshape(-1, width)
                for name, width in index["widths"].items()
            }
            for utterance, rows in index["utterances"].items():
                if utterance in self.places:
                    raise DataError(
                        f"utterance '{utterance}' is in the training and in the development set; "
                        "give them different names, or leave keep_teacher_outputs out"
                    )
                self.places[utterance] = (folder, rows)

    def batch(self, utterances: Sequence[str]) -> Outputs:
        """The outputs for some utterances in float32, padded by zeros.

        Raises:
            DataError: one of them isn't there.
        """
        found = [self._one(utterance) for utterance in utterances]
        padded = {name: pad_sequence([one[name] for one in found], True) for name in found[0]}
        hidden = {
            int(name.removeprefix(LAYER)): value
            for name, value in padded.items()
            if name.startswith(LAYER)
        }
        return Outputs(None, None, hidden, padded.get(CTC), padded.get(ATTENTION), None)

    def _one(self, utterance: str) -> dict[str, Tensor]:
        if utterance not in self.places:
            raise DataError(
                f"utterance '{utterance}': the teacher's outputs for it weren't kept; were the "
                "training or the development set made anew? Remove the teacher's folder `outputs`"
            )
        folder, rows = self.places[utterance]
        return {
            name: torch.from_numpy(values[slice(*rows[name])].astype(numpy.float32))
            for name, values in self.files[folder].items()
        }
