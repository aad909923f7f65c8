"""Writes a recipe's configurations with others merged over those of the same names."""

import logging
from collections.abc import Mapping
from pathlib import Path

from espnet_prune.config import dump_yaml, load_yaml, merge, nearest
from espnet_prune.errors import ConfigError
from espnet_prune.io_atomic import write_text

logger = logging.getLogger(__name__)


def merge_files(own: Mapping[str, tuple[Path, str]], over: Path, out: Path) -> None:
    """Writes a file for every one that exists; all are read before one is written.

    Args:
        own: the recipe's files by name, and what each result is called.
        over: folder of what wins.
        out: folder of the results.

    Raises:
        ConfigError: a file of ``over`` has a name that the recipe lacks, so nothing would read it.
    """
    wins = {path.stem: load_yaml(path) for path in sorted(over.glob("*.yaml"))}
    if not wins:
        raise ConfigError(f"{over}: no YAML files are there to merge over the recipe's")
    for name in wins.keys() - own.keys():
        raise ConfigError(
            f"{over / name}.yaml: the recipe has no configuration '{name}'"
            f"{nearest(name, own)}; choose one of {sorted(own)}"
        )
    merged = {}
    for name, (path, result) in own.items():
        if path.exists():
            base, changes = load_yaml(path), wins.get(name, {})
            if name == "systems" and result != "systems.yaml":  # not the recipe's own
                changes = _of_these_systems(base, changes, over)
            merged[result] = merge(base, changes)
    for result, values in merged.items():
        write_text(out / result, dump_yaml(values))


def _of_these_systems(base: dict, over: dict, folder: Path) -> dict:
    """Without rows that only change a system which another file of systems doesn't have."""
    rows = over.get("systems")
    if not isinstance(rows, dict):
        return over
    there = base.get("systems") or {}
    whole = {"method", "taken_from"}
    changes = [
        name
        for name, row in rows.items()
        if name not in there and isinstance(row, dict) and not whole & row.keys()
    ]
    if changes:
        logger.info(
            "%s/systems.yaml: left out what it changes of systems that there aren't: %s",
            folder,
            ", ".join(map(str, changes)),
        )
    return {**over, "systems": {n: row for n, row in rows.items() if n not in changes}}
