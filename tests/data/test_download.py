"""Downloads: resumed, checked, refused; against a server of this machine that misbehaves."""

import hashlib
import http.server
import io
import tarfile
import threading
from dataclasses import dataclass, field

import pytest

from espnet_prune.data import download
from espnet_prune.data.download import fetch, unpack
from espnet_prune.errors import EnvironmentProblem

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Site:
    """What the server sends, and what it was asked for.

    Attributes:
        break_after: bytes after which each connection breaks; None sends all.
        ranges: whether it knows the Range header.
        asked: the Range headers that came.
    """

    url: str = ""
    content: bytes = CONTENT
    break_after: int | None = None
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)


def handler_of(site: Site) -> type:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            site.asked.append(wanted)
            start = int(wanted[6:-1]) if wanted and site.ranges else 0
            total = len(site.content)
            if self.path != "/file":
                return self.send_error(404)
            if start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Length", str(total - start))
            self.end_headers()
            end = total if site.break_after is None else start + site.break_after
            self.wfile.write(site.content[start:end])

        def log_message(self, *args):
            pass

    return Handler


@pytest.fixture
def site(monkeypatch):
    """The server; what is changed in it holds from the next request on."""
    site = Site()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site.url = f"http://127.0.0.1:{server.server_port}/file"
    yield site
    server.shutdown()
    server.server_close()


def test_fetched_once(site, tmp_path):
    for _ in range(2):
        assert fetch(site.url, tmp_path / "new/file", "", MD5).read_bytes() == CONTENT
    assert site.asked == [None]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file"]


def test_broken_connection_is_taken_up_where_it_broke(site, tmp_path):
    site.break_after = 4000
    assert fetch(site.url, tmp_path / "file", "", MD5).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=4000-", "bytes=8000-"]


@pytest.mark.parametrize(("ranges", "sent_from"), [(True, 3000), (False, 0)])
def test_later_call_resumes_also_where_the_server_starts_anew(site, tmp_path, ranges, sent_from):
    site.ranges = ranges
    (tmp_path / "file.part").write_bytes(CONTENT[:3000] if sent_from else b"x" * 20000)
    assert fetch(site.url, tmp_path / "file", "", MD5).read_bytes() == CONTENT
    assert site.asked[0].startswith("bytes=")


def test_whole_part_is_asked_for_nothing_more(site, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert fetch(site.url, tmp_path / "file", "", MD5).read_bytes() == CONTENT


def test_part_longer_than_the_file_is_begun_anew(site, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    assert fetch(site.url, tmp_path / "file", "", MD5).read_bytes() == CONTENT


def test_other_checksum_is_an_error_and_nothing_is_kept(site, tmp_path):
    site.content = CONTENT[:-1] + b"?"
    with pytest.raises(EnvironmentProblem, match=f"{MD5} was expected.*REMEDY"):
        fetch(site.url, tmp_path / "file", "REMEDY", MD5)
    assert not list(tmp_path.iterdir())


def test_server_that_sends_nothing_is_given_up_and_what_came_is_kept(site, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:3000])
    site.break_after = 0
    with pytest.raises(EnvironmentProblem, match="3000 bytes are kept.*same command.*REMEDY"):
        fetch(site.url, tmp_path / "file", "REMEDY", MD5)
    assert len(site.asked) == download.TRIES
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:3000]


def test_missing_page_and_no_network_are_errors_at_once(site, tmp_path):
    with pytest.raises(EnvironmentProblem, match="404.*REMEDY"):
        fetch(f"{site.url}s", tmp_path / "file", "REMEDY")
    assert len(site.asked) == 1
    with pytest.raises(EnvironmentProblem, match="nowhere.invalid.*REMEDY"):
        fetch("http://nowhere.invalid/file", tmp_path / "file", "REMEDY")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../escaped", "/escaped"])
def test_archive_that_writes_outside_its_folder(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.addfile(tarfile.TarInfo("link"), io.BytesIO())
        packed.addfile(tarfile.TarInfo(name), io.BytesIO())
    if name.startswith("/"):  # the leading slash is dropped: it stays inside
        assert (unpack(archive, folder) / "escaped").is_file()
    else:
        with pytest.raises(EnvironmentProblem, match="can't be unpacked"):
            unpack(archive, folder)
        assert not list(folder.iterdir())
    assert [p.name for p in tmp_path.iterdir() if p.name == "escaped"] == []


def test_damaged_archive_is_named_and_leaves_nothing(tmp_path):
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        info = tarfile.TarInfo("file")
        info.size = len(CONTENT)
        packed.addfile(info, io.BytesIO(CONTENT))
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(EnvironmentProblem, match="a.tar.gz: it can't be unpacked"):
        unpack(archive, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]
