"""Configurations of systems, resolved as the driver resolves them, out of what a test gives."""

from collections.abc import Mapping
from pathlib import Path

from espnet_prune.config import load_yaml
from espnet_prune.train.recipe import Recipe
from espnet_prune.train.resolve import resolve
from espnet_prune.train.system_config import SystemConfig, write_config
from espnet_prune.train.systems import SystemRow, read_row

COUNTED = {"num_iters_per_epoch": 3, "max_epoch": 2}
FOLDERS = {"train": "dump/train", "valid": "dump/dev", "tokens": "data/tokens", "stats": "stats"}


def recipe_of(row: Mapping, prune: Mapping = COUNTED, finetune: Mapping = COUNTED) -> Recipe:
    """A recipe with one system, ``mine``."""
    values = {"systems": {"systems": {"mine": row}}, "prune": prune, "finetune": finetune}
    return Recipe(values, {name: f"{name}.yaml" for name in values})


def system_config(
    row: Mapping,
    experiment: Path = Path("exp"),
    prune: Mapping = COUNTED,
    finetune: Mapping = COUNTED,
    folders: Mapping[str, str] = FOLDERS,
) -> SystemConfig:
    """The system whose row of systems.yaml is given."""
    return resolve(recipe_of(row, prune, finetune), experiment, folders, "mine")


def write_system(experiment: Path, row: Mapping, **options: Mapping) -> Path:
    """Folder ``mine`` of an experiment with its configuration."""
    write_config(experiment / "mine", system_config(row, experiment, **options))
    return experiment / "mine"


def read_system(path: Path, name: str) -> SystemRow:
    """A row of a file of systems."""
    return read_row(load_yaml(path)["systems"], name, str(path))
