"""Whether what a command was told to write can be written where it was told to."""

from pathlib import Path

from espnet_prune.errors import ConfigError


def check_out_folder(folder: Path) -> None:
    """ConfigError where a file stands in the folder's place or above it.

    Args:
        folder: to be made, or there already.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{folder}: {nearest} is a file; a folder was expected, name another")


def check_out_file(file: Path) -> None:
    """ConfigError where a folder stands in the file's place, or a file above it.

    Args:
        file: to be written, or there already.
    """
    if file.is_dir():
        raise ConfigError(f"{file}: it is a folder; a file was expected, name one in it")
    check_out_folder(file.absolute().parent)
