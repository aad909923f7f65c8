"""Files that are either whole or absent: write beside the target, then rename.

A process killed while writing leaves at most a temporary file, never half of a result;
a full disk becomes an error that names the file.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from espnet_prune.errors import ConfigError, DataError, EnvironmentProblem
from espnet_prune.out_path import check_out_folder


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` and renames it to ``path`` on success.

    Args:
        path: the file to make; its folder is made too.

    Raises:
        EnvironmentProblem: the disk is full; names the file, and removes the temporary one.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentProblem(
                f"{target}: no space left on the disk while writing it; nothing was changed. "
                "Free some space and give the same command again."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(folder: Path, others: Callable[[Path], list[str]], what: str) -> Iterator[Path]:
    """Yields an empty folder beside ``folder`` that takes its place on success.

    Args:
        folder: to be made, or replaced; of a link, what it leads to.
        others: names of what is in a folder and isn't an earlier one's.
        what: makes the folder, with its article.

    Raises:
        ConfigError: ``folder`` is a file, or holds anything but an earlier one.
        EnvironmentProblem: the disk is full.
    """
    folder = folder.resolve()
    check_out_folder(folder)
    found = others(folder)
    if found:
        raise ConfigError(
            f"{folder}: holds other files than {what} ({found[0]}), which would be removed; "
            "choose another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{s}") for s in ("tmp", "old"))
    try:
        temporary.mkdir()
        yield temporary
        if folder.exists():
            folder.replace(old)  # so that no half of it is ever read
        temporary.replace(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentProblem(
                f"{folder}: no space left on the disk; nothing was changed. Free some space and "
                "give the same command again."
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.replace(folder)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a JSON file atomically, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: the file is missing or is not JSON; names it and the place.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; run the stage that makes it first") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not valid JSON ({error}); remove it and run its stage again"
        ) from error
