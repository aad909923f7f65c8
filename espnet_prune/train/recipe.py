"""A recipe's YAML files, with overrides merged over them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_prune.config import check_mapping, load_yaml, merge, nearest
from espnet_prune.errors import ConfigError

logger = logging.getLogger(__name__)
SYSTEMS, METHOD = "systems", "method"
PRUNE, FINETUNE = "prune", "finetune"


@dataclass(frozen=True)
class Recipe:
    """What a recipe says.

    Attributes:
        values: contents of each file that exists, by its name without ``.yaml``.
        where: what errors call each.
    """

    values: dict[str, dict]
    where: dict[str, str]

    @property
    def systems(self) -> Mapping:
        """The rows of systems.yaml.

        Raises:
            ConfigError: there are none.
        """
        rows = self.values.get(SYSTEMS, {}).get(SYSTEMS)
        if not rows:
            raise ConfigError(
                f"{self.where[SYSTEMS]}: expected the key '{SYSTEMS}' with at least one name: "
                "settings"
            )
        return check_mapping(f"{self.where[SYSTEMS]}: {SYSTEMS}", rows)


def read_recipe(files: Mapping[str, Path], over: Path | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        files: by name; those that don't exist are left out.
        over: folder of YAML files whose keys win over those of the same names.

    Raises:
        ConfigError: a file of ``over`` has a name that the recipe lacks, so nothing would read it.
    """
    wins = _overrides(files, over) if over is not None else {}
    values, where = {}, {name: str(path) for name, path in files.items()}
    for name, path in files.items():
        if not path.exists():
            continue
        values[name] = load_yaml(path)
        if name in wins:
            changes = wins[name]
            if name == SYSTEMS and path.stem != SYSTEMS:  # not the recipe's own
                changes = _of_these_systems(values[name], changes, over)
            values[name] = merge(values[name], changes)
            where[name] = f"{path} with {over / name}.yaml"
    return Recipe(values, where)


def _overrides(files: Mapping[str, Path], over: Path) -> dict[str, dict]:
    wins = {path.stem: load_yaml(path) for path in sorted(over.glob("*.yaml"))}
    if not wins:
        raise ConfigError(f"{over}: no YAML files are there to merge over the recipe's")
    for name in wins.keys() - files.keys():
        raise ConfigError(
            f"{over / name}.yaml: the recipe has no configuration '{name}'"
            f"{nearest(name, files)}; choose one of {sorted(files)}"
        )
    return wins


def _of_these_systems(base: dict, over: dict, folder: Path) -> dict:
    """Without rows that only change a system which another file of systems doesn't have."""
    rows = over.get(SYSTEMS)
    if not isinstance(rows, dict):
        return over
    there = base.get(SYSTEMS) or {}
    whole = {METHOD, "taken_from"}
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
    return {**over, SYSTEMS: {n: row for n, row in rows.items() if n not in changes}}
