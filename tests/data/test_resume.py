"""What a fingerprint of a data directory notices, and what it doesn't."""

import hashlib

import pytest

from espnet_prune.data.kaldi_dir import read_map
from espnet_prune.data.resume import fingerprint


def swap_audio(folder, size: int) -> None:
    (folder / "source" / "a-1.wav").write_bytes(bytes(size))


def retell(folder) -> None:
    (folder / "text").write_text((folder / "text").read_text().replace("A-1", "A-9"))


def move(folder) -> None:
    (folder / "source" / "a-1.wav").rename(folder / "moved.wav")
    path = folder / "wav.scp"
    path.write_text(path.read_text().replace("source/a-1", "moved"))


@pytest.mark.parametrize("change", [lambda folder: swap_audio(folder, 99), retell, move])
def test_another_size_text_or_path_is_noticed(data, change):
    before = fingerprint(data)
    change(data)
    assert fingerprint(data) != before


def test_other_audio_of_the_same_size_is_not_noticed_as_the_module_says(data):
    before = fingerprint(data)
    swap_audio(data, (data / "source" / "a-1.wav").stat().st_size)
    assert fingerprint(data) == before


def test_a_path_that_cannot_be_looked_up_is_left_to_who_reads_it(data):
    path = data / "wav.scp"
    path.write_text(path.read_text().replace("a-1.wav", 300 * "x" + ".wav"))
    assert fingerprint(data)


def test_fingerprints_of_earlier_versions_hold(data):
    """Another one would refuse every experiment that there is."""
    digest = hashlib.sha256()
    for name in ("wav.scp", "text", "utt2spk"):
        content = repr(sorted(read_map(data / name).items()))
        digest.update(hashlib.sha256(content.encode()).hexdigest()[:12].encode())
    for name in ("a-1", "a-2", "b-1", "b-2"):
        digest.update(str((data / "source" / f"{name}.wav").stat().st_size).encode())
    assert fingerprint(data) == digest.hexdigest()[:12]
