"""The records of stages: which configuration made a folder, what it was made from, and by what.

To resume is to give the same command: a finished stage is skipped, an unfinished one goes on,
and a folder that another configuration made is an error, never silently reused.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_prune.config import config_hash
from espnet_prune.errors import ConfigError, DataError
from espnet_prune.io_atomic import read_json, write_json

logger = logging.getLogger(__name__)
MARK = ".done.json"
BEGUN = ".begun.json"
OTHER_TAG = "Use another --tag, or remove this folder to make it anew."
OTHER_WORK_DIR = (
    "Use another --work_dir, or remove this folder to make it anew; every exp/TAG that was made "
    "from it has to be made anew then, too."
)
TOKENIZER_FILES = ("config.json", "tokenizer.json")
ORIGIN_FILES = ("config.yaml", "meta.yaml", "model.json", "*.pth", "*.safetensors")
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.bin")
SCHEMA = 1
RECORD = "system.json"
PACKAGES = ("torch", "espnet", "numpy", "sentencepiece", "jiwer")


def _plain(config: Mapping) -> dict:
    return json.loads(json.dumps(dict(config), sort_keys=True, default=str))


def _changed(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(set(old) | set(new))
        return [c for k in keys for c in _changed(old.get(k), new.get(k), f"{prefix}{k}.")]
    return [] if old == new else [f"{prefix.rstrip('.')}: {old!r} -> {new!r}"]


def check_same(
    folder: str | Path, config: Mapping, mark: str = MARK, remedy: str = OTHER_TAG
) -> None:
    """ConfigError where ``folder`` was begun or finished with another configuration."""
    path = Path(folder) / mark
    if not path.exists():
        return
    changes = _changed(read_json(path)["config"], _plain(config))
    if changes:
        raise ConfigError(
            f"{folder}: it was made with another configuration ({'; '.join(changes[:5])}). {remedy}"
        )


def finished(folder: str | Path, config: Mapping, remedy: str = OTHER_TAG) -> bool:
    """Whether ``folder`` was finished with this configuration.

    Args:
        folder: what a stage makes.
        config: what its result depends on.
        remedy: what the user can do where that changed; ``OTHER_WORK_DIR`` for what experiments
            share.

    Raises:
        ConfigError: it was finished with another one; names the keys that changed.
    """
    if not (Path(folder) / MARK).exists():
        return False
    check_same(folder, config, remedy=remedy)
    logger.info("%s: already done, nothing to do", folder)
    return True


def check_finished(folder: Path, config: Mapping, stage: str) -> None:
    """Refuses to go on from a folder that isn't complete.

    Args:
        folder: what a stage makes.
        config: what its result depends on.
        stage: the stage, for the error.

    Raises:
        DataError: it wasn't finished.
        ConfigError: it was finished with another configuration; names the keys that changed.
    """
    if not (folder / MARK).exists():
        raise DataError(f"{folder / MARK}: no such file; run {stage} first")
    check_same(folder, config)


def mark_finished(folder: str | Path, config: Mapping) -> None:
    """Records that ``folder`` is complete and which configuration made it."""
    write_json(Path(folder) / MARK, {"schema": 1, "config": _plain(config)})


def mark_begun(folder: str | Path, config: Mapping) -> None:
    """Records which configuration an unfinished ``folder`` is being made with."""
    write_json(Path(folder) / BEGUN, {"schema": 1, "config": _plain(config)})


def file_digest(path: Path) -> str:
    """The first 12 hex digits of a file's SHA-256, by which a result knows what it was made from.

    Raises:
        DataError: the file isn't there.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run the stages that make this model") from error


def contents_digest(folder: Path, patterns: Sequence[str]) -> str:
    """12 hex digits of the contents of a folder's files of these names."""
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    parts = [f"{path.name} {file_digest(path)}" for path in found]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def contents_of(name: object, patterns: Sequence[str]) -> dict[str, str]:
    """The part of a stage's record that tells a pretrained model from another in its place.

    Args:
        name: name of the model, a folder or file; nothing is known of a name on the hub, or of
            none.
        patterns: patterns of the files in a folder that the stage reads.
    """
    if not isinstance(name, str) or not Path(name).exists():
        return {}
    if Path(name).is_file():
        return {f"contents of {name}": file_digest(Path(name))}
    return {f"contents of {name}": contents_digest(Path(name), patterns)}


def read_record(system: Path) -> dict:
    """A system's record.

    Raises:
        DataError: it is missing; says which stage makes it.
    """
    if not (system / RECORD).exists():
        raise DataError(f"{system / RECORD}: no such file; run the stage that makes this system")
    return read_json(system / RECORD)


def update_record(system: Path, **parts: Mapping | list | float | str | None) -> dict:
    """Adds parts to a system's record, mappings key by key, and writes it."""
    path = system / RECORD
    record = read_json(path) if path.exists() else {"schema": SCHEMA, "name": system.name}
    for key, value in parts.items():
        if isinstance(value, Mapping) and isinstance(record.get(key), Mapping):
            value = {**record[key], **value}
        record[key] = value
    write_json(path, record)
    return record


def add_command(system: Path, config: Mapping, seed: int) -> None:
    """Adds this process's command and versions to the record."""
    made_by = provenance(config, seed)
    path = system / RECORD
    commands = read_json(path).get("commands", []) if path.exists() else []
    if made_by["command"] not in commands:
        commands = [*commands, made_by["command"]]
    update_record(system, commands=commands, provenance=made_by)


def provenance(config: Mapping, seed: int) -> dict:
    """The record that every experiment keeps beside its result."""
    return {
        "command": command_line(),
        "commit": git_commit(),
        "config_hash": config_hash(config),
        "seed": seed,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "platform": platform.machine(),
    }


def command_line() -> str:
    """This process's command, as a user would type it again in the same folder."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":  # `python -m espnet_prune`, of torchrun too
        program = Path("espnet-prune")
    name = program.name if program.suffix != ".py" else f"python {_near(sys.argv[0])}"
    return " ".join([name, *(shlex.quote(_near(word)) for word in sys.argv[1:])])


def _near(word: str) -> str:
    """A path below the current folder relative to it, so that commands hold on other machines."""
    folder = f"{Path.cwd()}/"
    return word.removeprefix(folder) if word.startswith(folder) else word


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """The commit of this package's checkout, with '+' where files differ; None outside one."""
    folder = Path(__file__).parent
    try:
        run = {"cwd": folder, "capture_output": True, "text": True, "timeout": 20, "check": True}
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changed else "")


def machine() -> dict:
    """What the times were measured on."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    return {"cpu": name, "cores": os.cpu_count(), "torch": torch.__version__}
