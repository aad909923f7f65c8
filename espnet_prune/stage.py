"""Idempotent stages: a finished folder says which configuration made it.

To resume is to give the same command: a finished stage is skipped, an unfinished one goes on,
and a folder that another configuration made is an error, never silently reused.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espnet_prune.errors import ConfigError
from espnet_prune.io_atomic import read_json, write_json

logger = logging.getLogger(__name__)
MARK = ".done.json"
BEGUN = ".begun.json"
OTHER_TAG = "Use another --tag, or remove this folder to make it anew."
OTHER_WORK_DIR = (
    "Use another --work_dir, or remove this folder to make it anew; every exp/TAG that was made "
    "from it has to be made anew then, too."
)


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


def recorded(folder: str | Path, mark: str = MARK) -> dict | None:
    """The configuration that finished, or began, ``folder``; None where it didn't."""
    path = Path(folder) / mark
    return read_json(path)["config"] if path.exists() else None


def with_later(config: Mapping, later: Mapping, folder: str | Path, mark: str = MARK) -> dict:
    """A stage's record with keys that earlier versions didn't record.

    Args:
        config: the record.
        later: the keys; of a folder that was finished without them, they are left out, so that it
            is taken as it is.
        folder: what the stage makes.
        mark: which of its records.
    """
    old = recorded(folder, mark)
    known = later if old is None else {key: later[key] for key in later if key in old}
    return {**config, **known}


def mark_finished(folder: str | Path, config: Mapping) -> None:
    """Records that ``folder`` is complete and which configuration made it."""
    write_json(Path(folder) / MARK, {"schema": 1, "config": _plain(config)})


def mark_begun(folder: str | Path, config: Mapping) -> None:
    """Records which configuration an unfinished ``folder`` is being made with."""
    write_json(Path(folder) / BEGUN, {"schema": 1, "config": _plain(config)})
