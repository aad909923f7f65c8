"""LibriSpeech: its layout in several forms of audio, lists of chapters, what is wrong is named."""

import hashlib
import http.server
import re
import tarfile
import threading
from pathlib import Path

import pytest
from librispeech_copy import write_chapter, write_corpus

from espnet_prune.cli import main, run
from espnet_prune.data import librispeech as module
from espnet_prune.data import librispeech_download
from espnet_prune.data.kaldi_dir import read_data, read_map
from espnet_prune.data.validate import validate

SETS = """\
sets:
  train: {parts: [train-clean-360]}
  test: {parts: [test-clean]}
download: [train-clean-360, test-clean]
"""


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """The published counts of the small copy."""
    monkeypatch.setattr(module, "UTTERANCES", {"train-clean-360": 5, "test-clean": 4})


@pytest.fixture
def prepare(tmp_path):
    """Calls the main on a corpus in ``tmp_path/corpus``."""

    def call(*options: str, sets: str = SETS, given: Path | None = tmp_path / "corpus") -> int:
        (tmp_path / "data.yaml").write_text(sets)
        place = [] if given is None else ["--librispeech", str(given)]
        arguments = ["--sets", str(tmp_path / "data.yaml"), "--out", str(tmp_path / "recipe/data")]
        return main(["prepare_librispeech", *place, *arguments, "--nj", "1", *options])

    return call


@pytest.fixture
def corpus(tmp_path) -> Path:
    return write_corpus(tmp_path / "corpus/LibriSpeech")


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "recipe/data"


@pytest.mark.parametrize("suffix", [".flac", ".opus", ".wav"])
def test_whole_parts_in_every_form_of_audio(tmp_path, prepare, out, suffix):
    write_corpus(tmp_path / "corpus/LibriSpeech", suffix)
    assert prepare() == 0
    data, _ = validate(out / "train")
    assert list(data.texts) == [
        *(f"14-208-000{i}" for i in range(2)),
        *(f"22-12-000{i}" for i in range(3)),
    ]
    assert data.texts["22-12-0002"] == "HELLO NUMBER 2"
    assert data.recordings["14-208-0001"].endswith(f"train-clean-360/14/208/14-208-0001{suffix}")
    assert set(data.speakers.values()) == {"14", "22"}
    assert read_map(out / "train/spk2gender") == {"14": "f", "22": "m"}
    assert read_map(out / "test/spk2gender") == {"22": "m"}
    assert len(validate(out / "test")[0].texts) == 4


def test_several_processes_give_the_same(corpus, prepare, out):
    assert prepare() == 0
    files = {p.name: p.read_bytes() for p in (out / "train").iterdir()}
    (out / ".done.json").unlink()
    for path in (out / "train").iterdir():
        path.unlink()
    assert prepare("--nj", "2") == 0
    assert {p.name: p.read_bytes() for p in (out / "train").iterdir()} == files


def test_done_data_are_left_and_other_sets_are_refused(corpus, prepare, out, capsys):
    assert prepare() == 0
    (out / "train/text").write_text("kept\n")
    assert prepare() == 0
    assert (out / "train/text").read_text() == "kept\n"
    assert prepare(sets=SETS.replace("test-clean]}", "train-clean-360]}")) == 2
    assert "another configuration" in capsys.readouterr().err


def test_without_readers_there_are_no_genders(corpus, prepare, out):
    (corpus / "SPEAKERS.TXT").unlink()
    assert prepare() == 0
    assert not (out / "train/spk2gender").exists()


def listing(tmp_path, **lists: str) -> str:
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return f"sets: {{own: {{chapters: [{', '.join(f'{name}.txt' for name in lists)}]}}}}"


def test_listed_chapters_are_found_in_whatever_part_has_them(tmp_path, corpus, prepare, out):
    sets = listing(tmp_path, a="# a subset\n22-5 4\n", b="14-208 2  # in another part\n")
    assert prepare(sets=sets) == 0
    assert sorted({u.rpartition("-")[0] for u in read_data(out / "own").texts}) == [
        "14-208",
        "22-5",
    ]


def test_the_command_lists_what_preparation_reads(tmp_path, corpus, prepare, out, capsys):
    assert run(["list_chapters", str(corpus / "train-clean-360")]) == 0
    text = capsys.readouterr().out
    assert text == "# train-clean-360: 2 chapters, 5 utterances\n14-208 2\n22-12 3\n"
    assert prepare(sets=listing(tmp_path, all=text)) == 0
    assert len(read_data(out / "own").texts) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("14-208 2\n14-999 3\n", r"a.txt lists chapter 14-999, which none of the parts"),
        ("14-208 3\n", r"14/208, by .*a.txt, should have 3 utterances, not 2"),
        ("14-208\n", r"a.txt:1: 'SPEAKER-CHAPTER UTTERANCES' was expected"),
        ("14-208 2\n14-208 2\n", r"a.txt:2: chapter 14-208 comes twice"),
        ("# none\n", r"a.txt: it lists no chapter"),
    ],
)
def test_wrong_list_is_named(tmp_path, corpus, prepare, capsys, text, message):
    assert prepare(sets=listing(tmp_path, a=text)) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("sets: {a: {}}", "sets.a: either parts or chapters was expected"),
        ("sets: {a: {part: [x]}}", "unknown key 'part'.*did you mean 'parts'"),
        ("sets: {a: {parts: [dev-clean]}}", "the set a needs the part 'dev-clean'.*only"),
        ("sets: {a: {parts: [test-clean, test-clean]}}", "sets.a: a chapter is in it twice"),
        ("sets: {}\ndownload: [test-claen]", "did you mean 'test-clean'"),
        ("sets: {a: {chapters: [no.txt]}}", "no.txt: no such list of chapters"),
    ],
)
def test_wrong_configuration_is_named(corpus, prepare, capsys, sets, message):
    assert prepare(sets=sets) == 2
    assert re.search(message, capsys.readouterr().err)


def test_folder_without_librispeech_is_named(tmp_path, prepare, capsys):
    assert prepare(given=tmp_path) == 2
    assert "no LibriSpeech there" in capsys.readouterr().err


CHAPTER = "train-clean-360/22/12"


def damage(root: Path) -> None:
    path = root / CHAPTER / "22-12-0001.flac"
    path.write_bytes(path.read_bytes()[:-700])


def empty(root: Path) -> None:
    (root / CHAPTER / "22-12-0001.flac").write_bytes(b"")


def missing(root: Path) -> None:
    (root / CHAPTER / "22-12-0001.flac").unlink()


def no_text(root: Path) -> None:
    path = root / CHAPTER / "22-12.trans.txt"
    path.write_text(path.read_text().replace("22-12-0001 HELLO NUMBER 1", "22-12-0001"))


def no_line(root: Path) -> None:
    path = root / CHAPTER / "22-12.trans.txt"
    path.write_text(path.read_text().replace("22-12-0001 HELLO NUMBER 1\n", ""))


BAD = [
    (damage, r"22-12\.trans\.txt:2: .*22-12-0001\.flac' can't be read as audio"),
    (empty, r"22-12-0001\.flac' can't be read"),
    (missing, r"12/22-12-0001: no recording with a suffix"),
    (no_text, r"22-12\.trans\.txt:2: '22-12-0001' has an empty transcript"),
    (no_line, r"22-12-0001\.flac: its transcript has no line for it"),
]


@pytest.mark.parametrize(("harm", "message"), BAD)
def test_bad_file_stops_or_is_skipped(corpus, prepare, out, capsys, harm, message):
    harm(corpus)
    assert prepare() == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "--skip_bad" in error and "Traceback" not in error
    assert not out.exists()
    assert prepare("--skip_bad") == 0
    assert re.search(message, (out / "train/skipped.txt").read_text())
    assert not (out / "test/skipped.txt").exists()
    made = list(validate(out / "train")[0].texts)
    assert made == ["14-208-0000", "14-208-0001", "22-12-0000", "22-12-0002"]


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe"])
def test_bad_transcript_takes_its_chapter_with_it(corpus, prepare, out, capsys, content):
    path = corpus / CHAPTER / "22-12.trans.txt"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert prepare() == 2
    error = capsys.readouterr().err
    assert "22-12.trans.txt: " in error
    assert "train-clean-360, as published, should have 5 utterances, not 2" in error
    assert prepare("--skip_bad") == 0
    assert len(read_data(out / "train").texts) == 2


def test_many_problems_are_counted(corpus, prepare, capsys):
    for path in corpus.rglob("*.flac"):
        path.unlink()
    write_chapter(corpus / "test-clean/22/6", 4)
    for path in corpus.rglob("*.flac"):
        path.write_bytes(b"x")
    assert prepare() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 14 of the corpus's files") and "and 4 more" in error


def test_nothing_good_left_is_an_error(corpus, prepare, capsys):
    for path in (corpus / "test-clean").rglob("*.flac"):
        path.unlink()
    assert prepare("--skip_bad") == 2
    assert "no good utterance is left" in capsys.readouterr().err


# Download


@pytest.fixture
def mirror(tmp_path, corpus, monkeypatch):
    """A web server with the corpus as archives, a part each; yields its URL and its folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    sums = {}
    for part in ("train-clean-360", "test-clean"):
        archive = folder / f"{part}.tar.gz"
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(corpus / part, f"LibriSpeech/{part}")
            packed.add(corpus / "SPEAKERS.TXT", "LibriSpeech/SPEAKERS.TXT")
        sums[part] = hashlib.md5(archive.read_bytes()).hexdigest()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(librispeech_download, "MD5", sums)
    monkeypatch.setattr(module, "MD5", sums)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def test_without_a_folder_it_is_downloaded_once(tmp_path, mirror, prepare, out):
    url, site = mirror
    assert prepare("--mirror", url, given=None) == 0
    assert len(read_data(out / "train").texts) == 5
    assert read_map(out / "train/spk2gender") == {"14": "f", "22": "m"}
    root = tmp_path / "recipe/downloads/LibriSpeech"
    assert sorted(p.name for p in root.iterdir()) == [
        "SPEAKERS.TXT",
        "test-clean",
        "train-clean-360",
    ]
    assert [p.name for p in root.parent.iterdir()] == ["LibriSpeech"]  # no archives are left
    for archive in site.iterdir():
        archive.unlink()
    assert prepare("--mirror", url, given=None) == 0


def test_site_without_it_says_what_to_do(tmp_path, mirror, prepare, capsys):
    url, site = mirror
    (site / "test-clean.tar.gz").unlink()
    assert prepare("--mirror", url, given=None) == 2
    error = capsys.readouterr().err
    assert "test-clean.tar.gz: it can't be downloaded" in error
    assert "--librispeech DIR" in error and "Traceback" not in error
    assert (tmp_path / "recipe/downloads/LibriSpeech/train-clean-360").is_dir()


def test_other_checksum_is_refused(mirror, prepare, capsys):
    url, site = mirror
    path = site / "train-clean-360.tar.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert prepare("--mirror", url, given=None) == 2
    assert "MD5" in capsys.readouterr().err


# Generated


def test_generated_corpus_is_read_like_the_genuine_one(tmp_path, prepare, out):
    (tmp_path / "corpus.yaml").write_text(
        "sets: {train: 5, test: 3}\nvoices: {awb: 124, slt: 174}\nkinds: {command: 1}\n"
    )
    arguments = ["--config", str(tmp_path / "corpus.yaml"), "--out", str(tmp_path / "corpus")]
    assert main(["generate_librispeech", *arguments, "--nj", "1"]) == 0
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "corpus").rglob("*.flac")}
    assert main(["generate_librispeech", *arguments]) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "corpus").rglob("*.flac")} == files
    assert prepare(sets="sets: {a: {parts: [train]}, b: {parts: [test]}}") == 0
    assert len(validate(out / "a")[0].texts) == 5
    assert len(validate(out / "b")[0].texts) == 3
    genders = {**read_map(out / "a/spk2gender"), **read_map(out / "b/spk2gender")}
    assert genders.items() <= {"100001": "m", "100002": "f"}.items()
