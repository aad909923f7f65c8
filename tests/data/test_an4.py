"""AN4: the genuine layout in every form of audio, and what is missing is named."""

import http.server
import re
import tarfile
import threading
from pathlib import Path

import numpy
import pytest
import soundfile

from espnet_prune.cli import main
from espnet_prune.data import an4
from espnet_prune.data.kaldi_dir import read_data
from espnet_prune.data.validate import validate

TRAIN = {f"an{i}-sp{i // 2}{x}-b": i for i, x in enumerate("aabbccdd")}
TEST = {"cen1-te-b": 1, "cen2-te-b": 2, "an3-tf-b": 3}


def write_recording(path: Path, kind: str, number: int) -> None:
    samples = (5000 * numpy.sin(numpy.arange(1600 + number) * 0.1)).astype(numpy.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "raw":
        samples.astype(">i2").tofile(f"{path}.raw")
    else:
        formats = {"sph": "NIST", "flac": "FLAC", "wav": "WAV"}
        soundfile.write(f"{path}.{kind}", samples, 16000, format=formats[kind], subtype="PCM_16")


def make_an4(root: Path, kind: str = "flac") -> Path:
    (root / "etc").mkdir(parents=True)
    for part, names in (("train", TRAIN), ("test", TEST)):
        ids, lines = [], []
        for name, number in names.items():
            speaker = name.split("-")[1]
            ids.append(f"an4_{'clstk' if part == 'train' else 'test_clstk'}/{speaker}/{name}")
            sentence = f"HELLO {number and 'TWO'} WORDS"
            lines.append(
                f"<s> {sentence} </s> ({name})" if part == "train" else f"{sentence} ({name})"
            )
            write_recording(root / "wav" / ids[-1], kind, number)
        (root / "etc" / f"an4_{part}.fileids").write_text("\n".join(ids) + "\n")
        (root / "etc" / f"an4_{part}.transcription").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """The counts of the small copy."""
    monkeypatch.setattr(an4, "COUNTS", {"train": len(TRAIN), "test": len(TEST)})
    monkeypatch.setattr(an4, "DEV_SPEAKERS", 1)


@pytest.mark.parametrize("kind", ["flac", "wav", "sph", "raw"])
def test_sets_are_valid_in_every_form_of_audio(tmp_path, kind):
    out = tmp_path / "data"
    assert (
        main(["prepare_an4", "--an4", str(make_an4(tmp_path / "an4", kind)), "--out", str(out)])
        == 0
    )
    sets = {name: validate(out / name)[0] for name in ("train_nodev", "dev", "test")}
    assert {name: len(data.texts) for name, data in sets.items()} == {
        "train_nodev": 6,
        "dev": 2,
        "test": 3,
    }
    assert sets["test"].texts["te-cen2-te-b"] == "HELLO TWO WORDS"
    assert sets["train_nodev"].texts["sp1b-an2-sp1b-b"] == "HELLO TWO WORDS"
    speakers = [set(data.speakers.values()) for data in sets.values()]
    assert not speakers[0] & speakers[1] and not speakers[0] & speakers[2]


def test_same_again_gives_the_same_files(tmp_path):
    root = make_an4(tmp_path / "an4", "raw")
    arguments = ["--an4", str(root), "--out", str(tmp_path / "data")]
    assert main(["prepare_an4", *arguments]) == 0
    files = {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()}
    assert main(["prepare_an4", *arguments]) == 0
    assert {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()} == files


def no_recording(root: Path) -> None:
    next((root / "wav").rglob("an2-*")).unlink()


def no_list(root: Path) -> None:
    (root / "etc/an4_train.fileids").unlink()


def drop_line(root: Path) -> None:
    path = root / "etc/an4_train.transcription"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))


def drop_both(root: Path) -> None:
    drop_line(root)
    path = root / "etc/an4_train.fileids"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))


def other_id(root: Path) -> None:
    path = root / "etc/an4_train.transcription"
    path.write_text(path.read_text().replace("(an2-", "(an9-"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_recording, r"an2-sp1b-b: no recording"),
        (no_list, r"an4_train\.fileids: no such file; --an4 must be the folder"),
        (drop_line, r"an4_train\.transcription has 7 lines, an4_train\.fileids 8"),
        (drop_both, r"7 train utterances, AN4 has 8"),
        (other_id, r"'.*\(an9-sp1b-b\)' doesn't end in \(an2-sp1b-b\)"),
    ],
)
def test_incomplete_copy_is_named(tmp_path, capsys, damage, message):
    root = make_an4(tmp_path / "an4")
    damage(root)
    assert main(["prepare_an4", "--an4", str(root), "--out", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error
    assert not (tmp_path / "data/train_nodev").exists()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A web server on this machine for ``tmp_path / 'site'``; yields that folder."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(an4, "URL", f"http://127.0.0.1:{server.server_port}/an4_sphere.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()


def test_without_a_folder_it_is_downloaded_once(tmp_path, site):
    root = make_an4(tmp_path / "packed/an4", "sph")
    with tarfile.open(site / "an4_sphere.tar.gz", "w:gz") as archive:
        archive.add(root, "an4")
    out = tmp_path / "recipe/data"
    assert main(["prepare_an4", "--out", str(out)]) == 0
    (site / "an4_sphere.tar.gz").unlink()
    assert main(["prepare_an4", "--out", str(out)]) == 0
    assert len(read_data(out / "test").texts) == len(TEST)


def test_site_without_it_says_what_to_do(tmp_path, site, capsys):
    assert main(["prepare_an4", "--out", str(tmp_path / "recipe/data")]) == 2
    error = capsys.readouterr().err
    assert an4.URL in error and "--an4 DIR" in error and "Traceback" not in error
    assert not [p for p in (tmp_path / "recipe").rglob("*") if p.is_file()]


def test_damaged_archive_is_named_and_leaves_no_half(tmp_path, site, capsys):
    root = make_an4(tmp_path / "packed/an4", "sph")
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as archive:
        archive.add(root, "an4")
    content = (tmp_path / "whole.tar.gz").read_bytes()
    (site / "an4_sphere.tar.gz").write_bytes(content[: len(content) // 2])
    assert main(["prepare_an4", "--out", str(tmp_path / "recipe/data")]) == 2
    assert "it can't be unpacked" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "recipe/downloads").iterdir()] == ["an4_sphere.tar.gz"]


def test_archive_that_writes_outside_its_folder_is_refused(tmp_path, site, capsys):
    (tmp_path / "evil").write_text("x")
    with tarfile.open(site / "an4_sphere.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "evil", "../../escaped")
    assert main(["prepare_an4", "--out", str(tmp_path / "recipe/data")]) == 2
    assert "can't be unpacked" in capsys.readouterr().err
    assert not list(tmp_path.rglob("escaped"))
