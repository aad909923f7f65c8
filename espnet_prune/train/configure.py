"""Resolves a recipe for an experiment: ``exp/TAG/SYSTEM/config.yaml`` and ``exp/TAG/conf``."""

from pathlib import Path

from espnet_prune.config import config_hash, dump_yaml, load_yaml
from espnet_prune.io_atomic import write_text
from espnet_prune.train.recipe import FINETUNE, PRUNE, SYSTEMS, Recipe
from espnet_prune.train.system_names import system_names, taken_from

CONF = "conf"
MADE_FROM = "made_from"


def write_conf(recipe: Recipe, experiment: Path) -> None:
    """Writes what the stages read that aren't a system's: teacher, decode, profile."""
    for name in recipe.values.keys() - {SYSTEMS, PRUNE, FINETUNE}:
        path, text = experiment / CONF / f"{name}.yaml", dump_yaml(recipe.values[name])
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)


def configure_systems(
    recipe: Recipe, experiment: Path, folders: dict[str, str], only: str | None = None
) -> tuple[list[str], list[str], list[str]]:
    """Writes the configuration of each chosen system, unless it was made from the same.

    Args:
        recipe: the recipe.
        experiment: ``exp/TAG``.
        folders: folders of the data, by the names of ``Folders``.
        only: names of the chosen systems, separated by spaces; all by default.

    Returns:
        The names in the order in which stages make them; those of them that are taken from another
        system's ladder; those that are made of another's finished model, or taken from such a one.

    Raises:
        ConfigError: a system, or what it reads, isn't what it should be.
    """
    rows, where = recipe.systems, recipe.where[SYSTEMS]
    names = system_names(rows, where, only)
    taken = {name: taken_from(rows[name]) for name in names}
    sources = [source for source in taken.values() if source in rows]
    for name in dict.fromkeys((*sources, *names)):
        _configure(recipe, experiment, folders, name)
    of_others = [name for name in names if "of" in rows[taken[name] or name]]
    return names, [name for name in names if taken[name]], of_others


def _configure(recipe: Recipe, experiment: Path, folders: dict[str, str], name: str) -> None:
    rows = recipe.systems
    inputs = [rows[name], rows.get(taken_from(rows[name])), folders]
    made_from = config_hash({"from": [*inputs, *(recipe.values.get(n) for n in (PRUNE, FINETUNE))]})
    path = experiment / name / "config.yaml"
    if path.exists() and load_yaml(path).get(MADE_FROM) == made_from:
        return
    from espnet_prune.train.resolve import resolve  # ESPnet knows its options: that takes seconds
    from espnet_prune.train.system_config import write_config

    write_config(experiment / name, resolve(recipe, experiment, folders, name, made_from))
