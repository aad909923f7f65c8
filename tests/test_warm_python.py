"""The Python of small recipes behaves as the real one does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import mini_recipe
import pytest
from throw_away_slurm import runs, wait_until

pytestmark = pytest.mark.timeout(300)  # the first waits for the imports
# A quick verb that reads a file by which a test can hold it.
COMMAND = ("-m", "espnet_prune", "validate_data")


@pytest.fixture
def begin(warm, tmp_path):
    """Starts a command by the warm Python in the test's folder."""

    def call(*words: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = warm.environment(mini_recipe.environment())
        return subprocess.Popen(["python", *words], cwd=tmp_path, env=environment, **pipes)

    return call


@pytest.fixture
def held(begin, tmp_path):
    """A verb that waits for the other end of a pipe, and the number of its process."""
    (tmp_path / "data").mkdir()
    for name in ("text", "utt2spk", "spk2utt"):
        (tmp_path / "data" / name).write_text("a b\n")
    os.mkfifo(tmp_path / "data/wav.scp")
    client = begin(*COMMAND, "data")

    def forks() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if Path(os.readlink(path / "cwd")) == tmp_path and int(path.name) != client.pid:
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    assert wait_until(forks, 20), client.communicate()
    return client, forks()[0]


def test_words_output_and_status_are_those_of_the_verb(begin):
    words = (*COMMAND, "no such folder")
    ours = begin(*words)
    output, error = ours.communicate(timeout=60)
    real = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert (output, ours.returncode) == (real.stdout, real.returncode) and real.returncode
    assert "no such folder" in error and "no such folder" in real.stderr


def test_anything_else_is_for_the_real_python(begin):
    output, _ = begin("-c", "import sys; print(sys.executable); sys.exit(3)").communicate()
    assert output.strip() == sys.executable


def test_a_signal_reaches_the_fork(held):
    client, fork = held
    client.send_signal(signal.SIGTERM)
    client.communicate(timeout=30)
    assert client.returncode == 128 + signal.SIGTERM
    assert wait_until(lambda: not runs(fork), 10)


def test_a_killed_client_takes_its_fork_along(held):
    client, fork = held
    client.kill()
    client.communicate(timeout=30)
    assert wait_until(lambda: not runs(fork), 10)
