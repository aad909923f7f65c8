"""Two decodings or scorings of one system and set at once: the second one is refused by name.

Its half of the texts would take the place of the first one's whole.
"""

import subprocess
import sys

import pytest

from espnet_prune import job_control
from espnet_prune.cli import main
from espnet_prune.data.kaldi_dir import write_map
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.decoding import decode
from espnet_prune.errors import TrainingError

HOLD = """\
import sys, pathlib
from espnet_prune.job_control import only_writer
with only_writer(pathlib.Path(sys.argv[1]), "decodes"):
    print(flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system's folder, decoded, whose set another process holds."""
    monkeypatch.setattr(job_control, "LOCK_SECONDS", 0.0)
    folder = tmp_path / "system"
    write_map(folder / "decode/test/greedy/hyp", {"u": "YES"})
    write_map(tmp_path / "data/text", {"u": "YES"})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder / "decode/test")], **pipes)
    process.stdout.readline()
    yield folder
    process.communicate()


def test_a_decoding(system, tmp_path):
    with pytest.raises(TrainingError, match="decodes here; wait for its end"):
        decode(tmp_path / "model", tmp_path / "data", DecodeConfig(), system / "decode/test")


def test_a_scoring(system, tmp_path, capsys):
    arguments = ["--data", str(tmp_path / "data"), "--system", str(system), "--set"]
    assert main(["score", *arguments, "test"]) == 2
    assert "decodes or scores here; wait for its end" in capsys.readouterr().err
    assert not (system / "decode/test/greedy/score.json").exists()
    write_map(system / "decode/other/greedy/hyp", {"u": "YES"})
    assert main(["score", *arguments, "other"]) == 0
