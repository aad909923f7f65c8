"""What made a result: versions, commit, command, configuration hash, seed."""

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from espnet_prune.config import config_hash
from espnet_prune.errors import DataError

PACKAGES = ("torch", "espnet", "numpy", "sentencepiece", "jiwer")


def _version(package: str) -> str | None:
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


def provenance(config: Mapping, seed: int) -> dict:
    """The record that every experiment keeps beside its result."""
    return {
        "command": command_line(),
        "commit": git_commit(),
        "config_hash": config_hash(config),
        "seed": seed,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "platform": platform.machine(),
    }


def machine() -> dict:
    """What the times were measured on."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    return {"cpu": name, "cores": os.cpu_count(), "torch": torch.__version__}
