"""States of the smaller sizes that a run of stage 8 passed, on disk: kept, found, taken over.

``exp/<tag>/<system>/prune/ladder/`` holds for each rung, counted from 1, ``<n>.pth`` with weights,
gates and multipliers as they were when the rung's last epoch ended, and ``<n>.json``: its target,
epoch and updates, and the sparsity that the gates expected, that their rounding gave, and that the
cut will have.
"""

import csv
import io
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_prune.config import to_dataclass
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import atomic_path, read_json, write_json, write_text
from espnet_prune.record import BEGUN, MARK

LADDER = "ladder"
SCHEMA = 1
STATE = "latest.pth"  # of which stage 9 makes the cut model
PROGRESS = "progress.csv"
SECONDS = "train_seconds.json"


@dataclass(frozen=True)
class RungState:
    """What is known of a rung beside its weights.

    Attributes:
        target: its sparsity.
        epoch: the one it was kept after.
        updates: that the run had made by then.
        expected: sparsity that the gates' probabilities give.
        rounded: sparsity of the gates rounded one by one.
        closed: sparsity of the masks shifted to the target, and aligned if asked: the cut's.
        schema: version of this record.
    """

    target: float
    epoch: int
    updates: int
    expected: float
    rounded: float
    closed: float
    schema: int = SCHEMA


def rung_path(training: Path, number: int) -> Path:
    """The state's file, in the folder of a training; its record is beside it."""
    return training / LADDER / f"{number}.pth"


def write_rung(path: Path, state: RungState) -> None:
    """Writes the record; after the state, so that whoever finds it finds both."""
    write_json(path.with_suffix(".json"), asdict(state))


def find_rung(source: Path, target: float) -> tuple[Path, RungState]:
    """The state of a size, and its record.

    Args:
        source: folder of the system whose run passed it.
        target: the size.

    Raises:
        DataError: that run isn't finished, or didn't pass it.
    """
    training = source / "prune"
    if not (training / MARK).exists():
        raise DataError(f"{training}: the run isn't finished; run stage 8 of '{source.name}' first")
    for path in sorted((training / LADDER).glob("*.json")):
        state = to_dataclass(RungState, read_json(path), str(path))
        if state.target == target:
            return path.with_suffix(".pth"), state
    raise DataError(
        f"{training / LADDER}: no state of the size {target:g}; add it to the ladder of "
        f"'{source.name}', and remove {training} to run that anew"
    )


def take_rung(source: Path, target: float, training: Path) -> RungState:
    """Makes a folder as if a run of stage 8 had ended with this rung.

    The state is copied, so that the model outlives the other system's folder; so are the lines and
    seconds of the epochs up to it.

    Args:
        source: folder of the system whose run passed it.
        target: the size.
        training: folder to make, ``prune`` of another system.

    Raises:
        ConfigError: a run of its own was begun there.
        DataError: there is no such rung.
    """
    if (training / BEGUN).exists():
        raise ConfigError(
            f"{training}: a run of its own was begun there, which isn't that of '{source.name}'; "
            "use another --tag, or remove this folder"
        )
    path, state = find_rung(source, target)
    epochs = read_json(source / "prune" / SECONDS)["epochs"]
    epochs = {k: seconds for k, seconds in epochs.items() if int(k) <= state.epoch}
    write_json(training / SECONDS, {"seconds": round(sum(epochs.values()), 3), "epochs": epochs})
    text = io.StringIO()
    with (source / "prune" / PROGRESS).open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        writer = csv.DictWriter(text, reader.fieldnames or ())
        writer.writeheader()
        writer.writerows(row for row in reader if int(row["epoch"]) <= state.epoch)
    write_text(training / PROGRESS, text.getvalue())
    with atomic_path(training / STATE) as temporary:
        shutil.copyfile(path, temporary)
    return state
