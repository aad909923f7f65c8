"""A finished system with its weights in few bits, as a system beside it."""

from pathlib import Path

from espnet_prune.errors import ConfigError
from espnet_prune.record import add_command, read_record, update_record
from espnet_prune.surgery import load
from espnet_prune.surgery.rounding import round_weights
from espnet_prune.surgery.serialize import WEIGHTS
from espnet_prune.train.system import write_cut

KEPT = ("method", "seed", "target", "sparsity", "params", "train_seconds", "updates", "weights")


def quantise_system(system: Path, bits: int, out: Path) -> int:
    """Writes the rounded model and its record, to be decoded, scored and reported like others.

    Args:
        system: the folder of a finished system, ``exp/TAG/NAME``.
        bits: 4 or 8.
        out: another one, ``exp/TAG/OTHER``.

    Returns:
        Bytes of its weights.

    Raises:
        ConfigError: both folders are the same.
        DataError: the system has no record, or no model.
    """
    if out.resolve() == system.resolve():
        raise ConfigError(f"--out {out}: the system itself; choose another name beside it")
    record, model = read_record(system), load(system / "model")
    round_weights(model, bits)
    write_cut(out, model, "model")
    size = (out / "model" / WEIGHTS).stat().st_size
    dense = (record.get("weights_bytes") or {}).get("dense")
    update_record(
        out,
        **{key: record[key] for key in KEPT if key in record},
        row={**(record.get("row") or {}), "bits": bits},
        weights_bytes={"kept": size, "dense": dense or (system / "model" / WEIGHTS).stat().st_size},
    )
    add_command(out, {"system": str(system), "bits": bits}, int(record.get("seed") or 0))
    return size
