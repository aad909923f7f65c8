"""Zips of a system: the one for stock ESPnet, by its own unpack and Speech2Text."""

import os
import subprocess
import sys
import zipfile

import numpy
import pytest
import torch
import yaml

from espnet_prune.cli import main
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.recogniser import open_recogniser
from espnet_prune.errors import ModelError
from espnet_prune.export.pack import pack_for_espnet
from espnet_prune.surgery import load


@pytest.fixture(scope="module")
def zips(system, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    assert main(["pack", "--system", str(system), "--out", str(folder / "half.zip")]) == 0
    return folder / "half.zip", folder / "half_espnet.zip"


def test_our_zip_loads(system, zips, tmp_path):
    with zipfile.ZipFile(zips[0]) as archive:
        archive.extractall(tmp_path)
    assert (tmp_path / "plan.json").exists() and (tmp_path / "system.json").exists()
    packed, own = load(tmp_path).state_dict(), load(system / "model").state_dict()
    assert all(torch.equal(packed[name], own[name]) for name in own)


def test_stock_espnet_unpacks_and_loads(system, zips, tmp_path):
    from espnet2.bin.asr_inference import Speech2Text
    from espnet2.main_funcs.pack_funcs import unpack  # what from_pretrained does with a local file

    files = unpack(zips[1], tmp_path / "unpacked")
    search = Speech2Text(**files, beam_size=3, ctc_weight=0.3)
    samples = numpy.random.default_rng(0).normal(0, 3000, 16000).astype(numpy.int16)
    speech = (samples / 32768).astype(numpy.float32)
    own = load(system / "model")
    with torch.no_grad():
        both = []
        for model in (search.asr_model, own):
            encoded, _ = model.encode(torch.from_numpy(speech)[None], torch.tensor([len(speech)]))
            both.append(model.ctc.log_softmax(encoded))
    assert torch.equal(*both)  # were a weight missing, ESPnet would leave it random without a word
    pairs = zip(search.asr_model.named_parameters(), own.named_parameters(), strict=True)
    assert all(name == same and torch.equal(a, b) for (name, a), (same, b) in pairs)
    recogniser = open_recogniser(system / "model", DecodeConfig(beam_size=3))
    text = " ".join((search(speech)[0][0] or "").replace("⁇", " ").split())  # ours leaves it out
    assert text == recogniser.transcribe(samples, "joint") != ""


def test_no_place_of_this_machine_is_in_it(system, zips):
    with zipfile.ZipFile(zips[1]) as archive:
        config = archive.read("config.yaml").decode()
    assert str(system.parent) not in config
    assert yaml.safe_load(config)["bpemodel"] == "bpe.model"


def test_a_folder_and_what_is_below_a_file_cannot_be_the_zip(system, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out, message in (
        (tmp_path, "it is a folder; a file was expected"),
        (tmp_path / "file/a.zip", "a file"),
    ):
        assert main(["pack", "--system", str(system), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_whisper_is_none_of_stock_espnet(system, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.json").write_text("{}")
    with pytest.raises(ModelError, match="no model for stock ESPnet"):
        pack_for_espnet(tmp_path, tmp_path / "a.zip")
    assert main(["pack", "--system", str(tmp_path), "--out", str(tmp_path / "b.zip")]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["b.zip"]


FRESH = """\
import sys
import numpy
import espnet_prune.models.espnet.choices
from espnet2.bin.asr_inference import Speech2Text
search = Speech2Text.from_pretrained(sys.argv[1], beam_size=3, ctc_weight=0.3)
print("text:", " ".join((search(numpy.load(sys.argv[2]))[0][0] or "").split()))
"""


@pytest.mark.slow
def test_from_pretrained_takes_it_in_a_fresh_python_with_one_import(system, zips, tmp_path):
    pytest.importorskip("espnet_model_zoo", reason="utils/setup_env.sh --slow installs it")
    samples = numpy.random.default_rng(0).normal(0, 3000, 16000).astype(numpy.int16)
    numpy.save(tmp_path / "speech.npy", (samples / 32768).astype(numpy.float32))
    command = [sys.executable, "-c", FRESH, str(zips[1]), str(tmp_path / "speech.npy")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    text = open_recogniser(system / "model", DecodeConfig(beam_size=3)).transcribe(samples, "joint")
    assert done.stdout.splitlines()[-1] == f"text: {text}" != "text: "
