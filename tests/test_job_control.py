"""What a training asks about its job: the stop file, and who may write."""

import json

import pytest
import torch

from espnet_prune.errors import TrainingError
from espnet_prune.job_control import (
    TASK,
    TOKEN,
    begin_training,
    check_is_writer,
    note_batches,
    stop_requested,
)


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
    begin_training("exp/train", 0)


def test_a_stop_is_asked_by_a_file(task):
    assert not stop_requested()
    (task / "3.stop").touch()
    assert stop_requested()


def test_an_old_copy_of_a_job_writes_no_checkpoint(task):
    """As on a machine that lost its network, after its job was queued again elsewhere."""
    import espnet_prune.models.espnet.choices  # noqa: F401  (stubs before ESPnet)
    from espnet_prune.train.trainer import atomic_torch_save

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


def stopped(folder, time_limit: bool) -> None:
    """What a run leaves that was asked to stop, when the next begins."""
    (folder / "3.stopped").write_text(json.dumps({"time_limit": time_limit, "seconds": 3000.0}))


def test_an_epoch_longer_than_the_time_limit_is_an_error_at_the_second_start(task):
    begin_training("exp/train", 4)
    stopped(task, time_limit=True)
    with pytest.raises(TrainingError) as caught:
        begin_training("exp/train", 4)
    for part in ("exp/train: epoch 5", "3000 s", "num_iters_per_epoch", "max_epoch", "--time"):
        assert part in str(caught.value)
    assert "batches" not in str(caught.value)


def test_the_error_says_how_long_the_epoch_is(task):
    begin_training("exp/train", 4)
    note_batches(200, 1000, 2500.0)
    stopped(task, time_limit=True)
    with pytest.raises(TrainingError, match="200 of its 1000 batches .* 2500 s.* about 12500 s"):
        begin_training("exp/train", 4)


def test_a_training_that_gets_on_may_be_stopped_again_and_again(task):
    for epoch in range(3):
        begin_training("exp/train", epoch)
        stopped(task, time_limit=True)


def test_preemption_a_lost_node_and_another_training_are_no_lack_of_progress(task):
    begin_training("exp/train", 4)
    begin_training("exp/train", 4)  # nobody asked it to stop: its machine was lost
    stopped(task, time_limit=False)
    begin_training("exp/train", 4)
    stopped(task, time_limit=True)
    begin_training("exp/other", 4)
