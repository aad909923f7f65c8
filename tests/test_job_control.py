"""What a training asks about its job: the stop file, and who may write."""

import json

import pytest
import torch

from espnet_prune.errors import TrainingError
from espnet_prune.job_control import TASK, TOKEN, check_is_writer, stop_requested


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A job's task whose newest copy has the token 'mine'."""
    monkeypatch.setenv(TASK, str(tmp_path / "3"))
    monkeypatch.setenv(TOKEN, "mine")
    write(tmp_path, "mine")
    return tmp_path


def write(folder, token):
    (folder / "3.started").write_text(json.dumps({"host": "n2", "process": 1, "token": token}))


def test_outside_a_job_nothing_is_asked(monkeypatch):
    monkeypatch.delenv(TASK, raising=False)
    assert not stop_requested()
    check_is_writer("checkpoint.pth")


def test_a_stop_is_asked_by_a_file(task):
    assert not stop_requested()
    (task / "3.stop").touch()
    assert stop_requested()


def test_an_old_copy_of_a_job_writes_no_checkpoint(task):
    """As on a machine that lost its network, after its job was queued again elsewhere."""
    import espnet_prune.espnet.registry  # noqa: F401  (stubs before ESPnet)
    from espnet_prune.espnet.trainer import atomic_torch_save

    path = task / "checkpoint.pth"
    with atomic_torch_save():
        torch.save({"epoch": 1}, path)
        write(task, "that of a newer copy")
        with pytest.raises(TrainingError, match="checkpoint.pth: a newer copy .* runs on n2"):
            torch.save({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


def test_records_that_were_removed_forbid_nothing(task):
    (task / "3.started").unlink()
    check_is_writer("checkpoint.pth")
