"""Downloads that go on where they stopped, are checked, and are unpacked safely.

Bytes come into ``NAME.part`` beside the target; a later call asks the server (HTTP ``Range``,
RFC 9110 section 14) for the rest only. ``NAME`` appears once it is whole and its MD5 agrees.
"""

import hashlib
import http.client
import logging
import os
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from espnet_prune.errors import EnvironmentProblem

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60
TRIES = 5  # in a row that brought no byte
BLOCK_BYTES = 1 << 20
CONTENT_RANGE = re.compile(r"^bytes (\d+)-\d+/(\d+)$")
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


def fetch(url: str, target: Path, remedy: str, md5: str | None = None) -> Path:
    """Downloads a file, unless it is there.

    Args:
        url: address of the file.
        target: where it goes; what came of it so far stands beside it as ``NAME.part``.
        remedy: what to do instead, for errors.
        md5: hexadecimal checksum; None checks only the length that the server names.

    Raises:
        EnvironmentProblem: the site can't be reached, breaks off again and again, or sends
            something with another checksum; a full disk.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        _fetch_all(url, part)
    except (OSError, http.client.HTTPException) as error:
        if part.exists() and not part.stat().st_size:
            part.unlink()
        kept = f" {part.stat().st_size} bytes are kept in {part}." if part.exists() else ""
        raise EnvironmentProblem(
            f"{url}: it can't be downloaded ({error}).{kept} Give the same command again to go on. "
            f"{remedy}"
        ) from error
    if md5 is not None:
        found = file_md5(part)
        if found != md5:
            part.unlink()
            raise EnvironmentProblem(
                f"{url}: its MD5 checksum is {found}, {md5} was expected, so it was damaged on its "
                f"way and is removed. Give the same command again. {remedy}"
            )
    os.replace(part, target)
    return target


def _fetch_all(url: str, part: Path) -> None:
    """Fetches until the file is whole; a broken connection is taken up again."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch_rest(url, part):
                return
            error: Exception = ConnectionError("the connection ended before the file did")
        except urllib.error.HTTPError:
            raise
        except (ConnectionError, TimeoutError, http.client.HTTPException) as problem:
            error = problem
        now = part.stat().st_size if part.exists() else 0
        failures = 0 if now > before else failures + 1
        if failures >= TRIES:
            raise error
        logger.warning("%s: %s after %d bytes; going on", url, error, now)


def _fetch_rest(url: str, part: Path) -> bool:
    """Appends what is missing; returns whether the file is whole then."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        source = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE or not start:
            raise
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if total == str(start):
            return True
        part.unlink()  # longer than the file is: it can't be a piece of it
        return False
    with source:
        start, total = _extent(source, start)
        with part.open("r+b" if part.exists() else "wb") as file:
            file.seek(start)
            file.truncate()
            shutil.copyfileobj(source, file, BLOCK_BYTES)
            return total is None or file.tell() == total


def _extent(source: http.client.HTTPResponse, asked: int) -> tuple[int, int | None]:
    """Where the bytes of a response begin in the file, and the file's length if it is named."""
    if source.status == PARTIAL_CONTENT:
        match = CONTENT_RANGE.match(source.headers.get("Content-Range") or "")
        if match is None or int(match[1]) != asked:
            raise OSError(f"bytes from {asked} on were asked for, but not sent")
        return asked, int(match[2])
    length = source.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def file_md5(path: Path) -> str:
    """The hexadecimal MD5 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a tar archive into a new temporary folder below ``folder``.

    The caller moves what it wants out of it and removes it (``tempfile`` names it).

    Raises:
        EnvironmentProblem: the archive is damaged or would write outside its folder, or the disk
            is full; nothing is left behind.
    """
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".unpacked."))
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(temporary, filter="data")
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        shutil.rmtree(temporary)
        raise EnvironmentProblem(
            f"{archive}: it can't be unpacked ({error}). Where the archive is damaged, remove it "
            "and give the same command again; else free some space."
        ) from error
    except BaseException:
        shutil.rmtree(temporary)
        raise
    return temporary
