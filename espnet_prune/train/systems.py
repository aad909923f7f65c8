"""Reads a row of systems.yaml: a method with its target, or one size of another row's run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from espnet_prune.budget.schedule import check_rising
from espnet_prune.config import check_mapping, merge, nearest, to_dataclass
from espnet_prune.errors import ConfigError
from espnet_prune.methods import METHODS
from espnet_prune.surgery.rounding import FORMS

TAKEN_FROM = "taken_from"
ROUNDED = {"method": "unpruned", "target": 0.0, "as_cut": True}  # another's model in few bits
OWN_KEYS = {TAKEN_FROM, "target", "training"}  # of a system that is a rung of another's ladder


@dataclass(frozen=True)
class SystemRow:
    """One system as systems.yaml has it.

    Attributes:
        method: a name in ``espnet_prune.methods.METHODS``.
        target: wanted sparsity.
        seed: seed of the gates' noise, the batches and everything else random.
        options: options of the method; keys given here win over the recipe's prune.yaml.
        training: keys of ESPnet's training configuration that win over prune.yaml and
            finetune.yaml for this system, such as another learning rate.
        ladder: smaller targets that the run passes, by rising sparsity; the state of each is kept,
            and other systems can be made of it. None for none.
        taken_from: the system whose ladder has this one's target; nothing is learned for this one.
        of: the system whose finished model is pruned in the teacher's place.
        as_cut: whether the cut model is final, with no finetuning.
        bits: 4 or 8 bits a weight in the finished model; None leaves them as they are.
    """

    method: str
    target: float = 0.5
    seed: int = 0
    options: dict[str, object] = field(default_factory=dict)
    training: dict[str, object] = field(default_factory=dict)
    ladder: tuple[float, ...] | None = None
    taken_from: str | None = None
    of: str | None = None
    as_cut: bool = False
    bits: int | None = None


def read_row(systems: Mapping, name: str, path: str) -> SystemRow:
    """One system of systems.yaml.

    A system that is taken from another's ladder has all of that one but its size, which is its own;
    training keys of its own win. One that is made of another, with bits and no method, is that one
    in so few bits.

    Args:
        systems: all rows.
        name: name of the one wanted.
        path: path of the file, for errors.

    Raises:
        ConfigError: no such system; an unknown key or method in it; a ladder that doesn't rise to
            the target, or of a method that gives one size; a rung that there isn't.
    """
    if name not in systems:
        raise ConfigError(f"{path}: there is no system '{name}'{nearest(name, systems)}")
    row, where = _keys_of(systems, name, path), f"{path}: {name}"
    if TAKEN_FROM in row:
        return _rung(path, where, row, systems)
    if {"of", "bits"} <= row.keys() and "method" not in row:
        row = {**ROUNDED, **row}
    system = to_dataclass(SystemRow, row, where)
    if system.method not in METHODS:
        near = nearest(system.method, METHODS)
        raise ConfigError(f"{where}: there is no method '{system.method}'{near}")
    _check_read(system, where)
    if system.bits not in (None, *FORMS):
        raise ConfigError(f"{where}: bits: {system.bits}; choose one of {list(FORMS)}")
    of = system.of
    if of is not None and (of not in systems or _is_of_another(systems, of, path)):
        raise ConfigError(
            f"{where}: of: '{system.of}' is no system that is made of the teacher"
            f"{nearest(system.of, set(systems) - {name})}"
        )
    if system.ladder is not None:
        _check_ladder(system, where)
    return system


def _keys_of(systems: Mapping, name: str, path: str) -> Mapping:
    """The row of a system as it is written."""
    return check_mapping(f"{path}: {name}", systems[name])


def _is_of_another(systems: Mapping, name: str, path: str) -> bool:
    """Whether a system, or the one whose rung it is, is itself made of another one."""
    row = _keys_of(systems, name, path)
    source = row.get(TAKEN_FROM)
    rung_of = isinstance(source, str) and source in systems
    return "of" in row or (rung_of and "of" in _keys_of(systems, source, path))


def _check_read(system: SystemRow, where: str) -> None:
    """ConfigError for an option that the system's method doesn't read."""
    known = {option.name for method in METHODS.values() for option in fields(method.Config)}
    reads = {option.name for option in fields(METHODS[system.method].Config)}
    for key in sorted(known & set(system.options) - reads):
        raise ConfigError(
            f"{where}: options: {key}: the method {system.method} doesn't read it; leave it out, "
            f"it reads {', '.join(sorted(reads))}"
        )


def _check_ladder(system: SystemRow, where: str) -> None:
    method = METHODS[system.method]
    if not method.emits_ladder:
        why = "gives one size a run" if method.learns_masks else "learns no masks"
        able = " or ".join(name for name, each in METHODS.items() if each.emits_ladder)
        raise ConfigError(
            f"{where}: ladder: the method {system.method} {why}; leave the ladder out, with a "
            f"system for each size, or choose the method {able}"
        )
    if not system.ladder:
        raise ConfigError(f"{where}: ladder: it is empty; name smaller targets, or leave it out")
    if system.ladder[0] <= 0:
        raise ConfigError(f"{where}: ladder: {system.ladder[0]:g} is no sparsity above 0")
    if system.ladder[-1] >= system.target:
        raise ConfigError(
            f"{where}: ladder: {system.ladder[-1]:g} is not below the target {system.target:g}, "
            "with which the run ends; make that the target, or leave the rung out"
        )
    check_rising(f"{where}: ladder", system.ladder)


def _rung(path: str, where: str, row: dict, systems: Mapping) -> SystemRow:
    source = row[TAKEN_FROM]
    if not isinstance(source, str) or source not in systems:
        raise ConfigError(
            f"{where}: {TAKEN_FROM}: there is no system '{source}'{nearest(source, systems)}"
        )
    for key in sorted(set(row) - OWN_KEYS, key=str):
        raise ConfigError(
            f"{where}: {key}: a system that is taken from another has that one's; leave the key "
            f"out or set it for '{source}'; keys of its own are {sorted(OWN_KEYS)}"
        )
    is_rung = TAKEN_FROM in _keys_of(systems, source, path)
    whole = None if is_rung else read_row(systems, source, path)
    if whole is None or whole.ladder is None:
        raise ConfigError(
            f"{where}: {TAKEN_FROM}: '{source}' has no ladder; give that system one, such as "
            f"`ladder: [{row.get('target', 0.3)}]`, or name the one that has it"
        )
    own = {"method": whole.method, **row}
    training = check_mapping(f"{where}: training", row.get("training") or {})
    own["training"] = merge(whole.training, training)
    own |= {key: getattr(whole, key) for key in ("seed", "options", "of", "as_cut", "bits")}
    system = to_dataclass(SystemRow, own, where)
    if "target" not in row or system.target not in whole.ladder:
        wrong = (
            f"{system.target:g} is no rung of '{source}'" if "target" in row else "it is missing"
        )
        raise ConfigError(
            f"{where}: target: {wrong}; choose one of {list(whole.ladder)}, or add it to that "
            "ladder"
        )
    return system
