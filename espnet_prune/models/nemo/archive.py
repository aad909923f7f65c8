"""A ``.nemo`` archive: a tar of configuration, weights and tokenizer, read without running code."""

import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espnet_prune.errors import DataError, ModelError
from espnet_prune.models.hub import from_hub

SUFFIX = ".nemo"
CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
MEMBER = "nemo:"  # what a path inside the archive begins with, in its configuration
HUB_OWNER = "nvidia/"


@dataclass(frozen=True)
class NemoArchive:
    """What an archive holds, unpacked.

    Attributes:
        source: the archive, for errors.
        config: configuration of the model.
        weights: the file of its weights.
        tokenizer: the sentencepiece model.
    """

    source: str
    config: Mapping[str, Any]
    weights: Path
    tokenizer: Path


def is_nemo(source: str) -> bool:
    """Whether a teacher is named that is NeMo's: a ``.nemo`` file, or NVIDIA's on the hub."""
    return source.endswith(SUFFIX) or source.startswith(HUB_OWNER)


def find_archive(source: str) -> Path:
    """The archive itself: a file, or one that the hub holds under this name.

    Raises:
        DataError: there is no such file.
        EnvironmentProblem: the hub can't be reached, or holds no such archive.
    """
    if source.endswith(SUFFIX) or not source.startswith(HUB_OWNER):
        if not Path(source).is_file():
            raise DataError(f"{source}: no such file; expected a {SUFFIX} archive")
        return Path(source)
    from huggingface_hub import hf_hub_download

    name = source.removeprefix(HUB_OWNER) + SUFFIX
    return from_hub(
        hf_hub_download,
        source,
        name,
        problem=f"{source}: {name} can't be had from the hub",
        remedy=f"download it where there is internet, and give the {SUFFIX} file itself",
    )


@contextmanager
def opened(source: str) -> Iterator[NemoArchive]:
    """Unpacks an archive's configuration, weights and tokenizer into a temporary folder.

    Args:
        source: a file, packed by gzip or not, or a name on the hub.

    Raises:
        DataError: no such file.
        ModelError: no archive, or a member is missing or damaged.
    """
    path = find_archive(source)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(path, "r:*") as archive:
                members = {m.name.removeprefix("./"): m for m in archive if m.isfile()}
                config = _read_config(archive, members, str(path))
                tokenizer = _tokenizer_name(config, members, str(path))
                files = {
                    name: _unpack(archive, members[name], Path(folder) / target)
                    for name, target in ((WEIGHTS, WEIGHTS), (tokenizer, "tokenizer.model"))
                }
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ModelError(
                f"{path}: can't be read as a {SUFFIX} archive ({error}); a whole tar or tar.gz as "
                "NeMo's save_to writes it was expected"
            ) from error
        yield NemoArchive(str(path), config, files[WEIGHTS], files[tokenizer])


def _read_config(archive: tarfile.TarFile, members: Mapping, where: str) -> dict:
    for name in (CONFIG, WEIGHTS):
        if name not in members:
            raise ModelError(
                f"{where}: it holds no {name}, but {', '.join(sorted(members)) or 'no file'}; a "
                f"{SUFFIX} archive was expected"
            )
    try:
        config = yaml.safe_load(archive.extractfile(members[CONFIG]).read())
    except yaml.YAMLError as error:
        raise ModelError(f"{where}: {CONFIG}: not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{where}: {CONFIG}: a mapping of keys was expected")
    return config


def _tokenizer_name(config: Mapping, members: Mapping, where: str) -> str:
    own = config.get("tokenizer")
    named = str(own.get("model_path") if isinstance(own, dict) else None)
    name = named.removeprefix(MEMBER).removeprefix("./")
    if name not in members:
        raise ModelError(
            f"{where}: {CONFIG}: tokenizer: model_path: {named!r} is no file of the archive; "
            "expected a sentencepiece model in it"
        )
    return name


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> Path:
    """Writes one member by its contents alone: no path, link or mode of the archive counts."""
    with target.open("wb") as file:
        source = archive.extractfile(member)
        while block := source.read(1 << 20):
            file.write(block)
    return target
