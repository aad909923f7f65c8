"""LibriSpeech's parts from openslr.org, where no copy is given: fetched, checked, unpacked."""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from espnet_prune.data.download import fetch, unpack
from espnet_prune.errors import EnvironmentProblem

logger = logging.getLogger(__name__)

URL = "https://www.openslr.org/resources/12"
CORPUS = "LibriSpeech"
REMEDY = (
    "Or fetch LibriSpeech elsewhere (openslr.org/12 names mirrors; --mirror URL takes one), unpack "
    "it, and give the folder that holds its parts by --librispeech DIR."
)
# as openslr.org/resources/12/md5sum.txt has them
MD5 = {
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
}


def download(parts: Iterable[str], folder: Path, url: str = URL) -> Path:
    """Fetches and unpacks parts; those that are there are left alone, their archives removed.

    Args:
        parts: keys of ``MD5``.
        folder: the corpus is made in ``folder/LibriSpeech``.
        url: address of the folder of archives: openslr's or a mirror's.

    Returns:
        The folder that holds the parts.

    Raises:
        EnvironmentProblem: the site can't be reached, an archive is damaged, the disk is full.
    """
    root = folder / CORPUS
    for part in parts:
        if (root / part).is_dir():
            continue
        archive = folder / f"{part}.tar.gz"
        logger.info("%s/%s: downloading", url, archive.name)
        fetch(f"{url}/{archive.name}", archive, REMEDY, MD5[part])
        _install(archive, part, root)
        archive.unlink()
    return root


def _install(archive: Path, part: str, root: Path) -> None:
    """Unpacks an archive beside the corpus, then moves in its lists and, last, the part."""
    unpacked = unpack(archive, archive.parent)
    try:
        inside = unpacked / CORPUS
        if not (inside / part).is_dir():
            raise EnvironmentProblem(f"{archive}: it holds no {CORPUS}/{part}; remove it. {REMEDY}")
        root.mkdir(exist_ok=True)
        for file in inside.glob("*.TXT"):
            os.replace(file, root / file.name)
        (inside / part).rename(root / part)
    finally:
        shutil.rmtree(unpacked)
