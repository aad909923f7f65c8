"""The guarded trainer: no silent NaN, whole files, checkpoints put right."""

import errno
import json
import types

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
import pytest
import torch

from espnet_prune import io_atomic
from espnet_prune.errors import EnvironmentProblem, TrainingError
from espnet_prune.job_control import TASK
from espnet_prune.train import trainer
from espnet_prune.train.trainer import (
    GuardedTrainer,
    _Recorder,
    atomic_torch_save,
    repair_checkpoints,
)


class Toy(torch.nn.Module):
    """Gives the loss that the batch asks for."""

    def forward(self, wanted, utt_id):
        loss = torch.as_tensor(wanted)
        return loss, {"loss_ctc": loss, "acc": torch.tensor(0.5), "loss_att": None}, 1


@pytest.fixture
def recorder():
    recorder = _Recorder(3, types.SimpleNamespace(accum_grad=1), batches=2)
    yield recorder
    recorder.bar.close()


@pytest.fixture
def model(recorder):
    model = Toy()
    model.register_forward_hook(recorder, with_kwargs=True)
    return model


@pytest.mark.parametrize("wanted", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_names_epoch_batch_and_utterances(model, wanted):
    model(wanted=1.0, utt_id=["a"])
    with pytest.raises(TrainingError) as caught:
        model(wanted=wanted, utt_id=["s1-u1", "s1-u2"])
    message = str(caught.value)
    for part in ("epoch 3", "batch 2", "s1-u1, s1-u2", "loss_ctc", "learning rate"):
        assert part in message
    assert "acc" not in message.split("utterances")[0]


def test_each_update_is_a_row_and_validation_is_none(model, recorder, tmp_path):
    model(wanted=1.0, utt_id=["a"])
    model(wanted=2.0, utt_id=["b"])
    model.eval()
    model(wanted=float("nan"), utt_id=["c"])
    recorder.write(tmp_path)
    lines = (tmp_path / "progress.csv").read_text().splitlines()
    assert lines == ["epoch,update,loss_ctc,acc", "3,1,1.0,0.5", "3,2,2.0,0.5"]


def test_a_row_is_the_mean_of_an_update_s_batches(tmp_path):
    recorder = _Recorder(1, types.SimpleNamespace(accum_grad=2), batches=5)
    model = Toy()
    model.register_forward_hook(recorder, with_kwargs=True)
    for wanted in (1.0, 2.0, 4.0, 8.0, 16.0):  # the fifth makes no update
        model(wanted=wanted, utt_id=["a"])
    recorder.bar.close()
    recorder.write(tmp_path)
    lines = (tmp_path / "progress.csv").read_text().splitlines()
    assert lines == ["epoch,update,loss_ctc,acc", "1,1,1.5,0.5", "1,2,6.0,0.5"]


def test_numbers_of_several_gpus_are_averaged_by_weight(recorder):
    model = Toy()
    weight = torch.tensor([3, 1])
    loss = torch.tensor([1.0, 5.0])
    recorder(model, (), {}, (loss, {"loss_ctc": loss}, weight))
    assert recorder.rows == [{"epoch": 3, "update": 1, "loss_ctc": 2.0}]
    with pytest.raises(TrainingError, match="the loss is nan"):
        recorder(model, (), {}, (torch.tensor([1.0, float("nan")]), {}, weight))


class Weight(torch.nn.Module):
    """One weight; its loss is finite, its gradient what the batch asks for."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, gradient, utt_id):
        loss = (self.weight * gradient).nan_to_num(0.0)
        loss.register_hook(lambda given: given * gradient)
        return loss, {"loss": loss.detach()}, torch.tensor(1)


def train_epoch(model, optimizers, folder, gradients, accum_grad=1, scaler=None):
    """One epoch of the guarded trainer over batches with these gradients."""
    from espnet2.train.distributed_utils import DistributedOption
    from espnet2.train.reporter import Reporter
    from espnet2.train.trainer import TrainerOptions

    options = TrainerOptions.__new__(TrainerOptions)  # ESPnet checks the type; few fields matter
    vars(options).update(
        output_dir=str(folder), accum_grad=accum_grad, grad_noise=False, grad_clip=float("inf"),
        grad_clip_type=2.0, log_interval=100, no_forward_run=False, ngpu=0, use_wandb=False,
        create_graph_in_tensorboard=False, use_amp=False,
    )  # fmt: skip
    batches = [(["a"], {"gradient": torch.tensor(gradient)}) for gradient in gradients]
    reporter = Reporter()
    reporter.set_epoch(1)
    with reporter.observe("train") as sub_reporter:
        return GuardedTrainer.train_one_epoch(
            model=model, iterator=batches, optimizers=optimizers, scaler=scaler,
            schedulers=[None] * len(optimizers),
            reporter=sub_reporter, summary_writer=None, options=options,
            distributed_option=DistributedOption(),
        )  # fmt: skip


def test_an_epoch_inherits_no_gradients(tmp_path):
    """Else an unbroken run would go on with what a resumed one can't know."""
    model = Weight()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.weight.grad = torch.tensor(100.0)
    train_epoch(model, [optimizer], tmp_path, [1.0, 1.0, 1.0], accum_grad=2)
    assert model.weight.item() == -1.0
    assert len((tmp_path / "progress.csv").read_text().splitlines()) == 2


def test_too_few_batches_for_an_update_are_an_error(tmp_path):
    model = Weight()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(TrainingError, match="epoch 1 had 3 batches, too few .* 4 .accum_grad"):
        train_epoch(model, [optimizer], tmp_path, [1.0, 1.0, 1.0], accum_grad=4)
    with pytest.raises(TrainingError, match="epoch 1 had 0 batches"):
        train_epoch(model, [optimizer], tmp_path, [])


def test_an_epoch_without_a_finite_gradient_is_an_error(tmp_path):
    model = Weight()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(TrainingError, match="epoch 1: no gradient was finite"):
        train_epoch(model, [optimizer], tmp_path, [float("inf")] * 3)
    assert model.weight.item() == 0.0
    assert not (tmp_path / "progress.csv").exists()


def test_rows_from_before_a_kill_are_replaced(model, recorder, tmp_path):
    (tmp_path / "progress.csv").write_text("epoch,update,old\n2,1,7\n3,1,8\n4,1,9\n")
    model(wanted=1.0, utt_id=["a"])
    recorder.write(tmp_path)
    lines = (tmp_path / "progress.csv").read_text().splitlines()
    assert lines == ["epoch,update,old,loss_ctc,acc", "2,1,7,,", "3,1,,1.0,0.5"]


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 1}, path)
    with atomic_torch_save(), pytest.raises((TypeError, AttributeError)):
        torch.save({"big": torch.zeros(1000), "unpicklable": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch, number):
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 1}, path)

    def full(descriptor):
        raise OSError(number, "No space left on device")

    monkeypatch.setattr("espnet_prune.io_torch.os.fsync", full)
    with atomic_torch_save(), pytest.raises(EnvironmentProblem, match="checkpoint.pth: no space"):
        torch.save({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]


@pytest.mark.skipif(not io_atomic.Path("/dev/full").exists(), reason="Linux has /dev/full")
def test_a_truly_full_device_is_an_environment_problem(tmp_path, monkeypatch):
    """PyTorch wraps the system's error in a RuntimeError of its own."""
    stock = torch.save

    def to_full_device(value, target, *arguments, **keywords):
        with open("/dev/full", "wb") as full:
            stock(value, full)

    path = tmp_path / "1epoch.pth"
    monkeypatch.setattr(torch, "save", to_full_device)
    with atomic_torch_save(), pytest.raises(EnvironmentProblem, match="1epoch.pth"):
        torch.save({"weights": torch.zeros(100000)}, path)
    assert not list(tmp_path.iterdir())


def test_saving_is_as_it_was_afterwards(tmp_path):
    stock = torch.save
    with pytest.raises(ZeroDivisionError), atomic_torch_save():
        assert torch.save is not stock
        _ = 1 / 0
    assert torch.save is stock


def write_checkpoint(folder, epoch=2):
    model = {"weight": torch.arange(3.0) + epoch}
    torch.save({"model": model, "reporter": {"epoch": epoch}}, folder / "checkpoint.pth")
    return model


def test_a_missing_file_of_the_epoch_is_written_anew(tmp_path):
    """As after a kill between checkpoint.pth and 2epoch.pth."""
    model = write_checkpoint(tmp_path)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "1epoch.pth")
    (tmp_path / "latest.pth").symlink_to("1epoch.pth")
    repair_checkpoints(tmp_path)
    assert torch.equal(torch.load(tmp_path / "2epoch.pth")["weight"], model["weight"])
    assert torch.equal(torch.load(tmp_path / "1epoch.pth")["weight"], torch.zeros(3))


@pytest.mark.parametrize("left", ["nothing", "the epoch before"])
def test_latest_leads_to_the_checkpoint_s_epoch(tmp_path, left):
    """As after a kill between 2epoch.pth and the link; the cut reads latest.pth."""
    model = write_checkpoint(tmp_path)
    torch.save(model, tmp_path / "2epoch.pth")
    if left == "the epoch before":
        torch.save({"weight": torch.zeros(3)}, tmp_path / "1epoch.pth")
        (tmp_path / "latest.pth").symlink_to("1epoch.pth")
    repair_checkpoints(tmp_path)
    assert (tmp_path / "latest.pth").readlink().name == "2epoch.pth"
    assert torch.equal(torch.load(tmp_path / "latest.pth")["weight"], model["weight"])


def test_a_whole_folder_is_left_alone(tmp_path):
    model = write_checkpoint(tmp_path)
    torch.save(model, tmp_path / "2epoch.pth")
    (tmp_path / "latest.pth").symlink_to("2epoch.pth")
    before = {p.name: p.lstat().st_mtime_ns for p in tmp_path.iterdir()}
    repair_checkpoints(tmp_path)
    assert before == {p.name: p.lstat().st_mtime_ns for p in tmp_path.iterdir()}


def test_nothing_to_repair(tmp_path):
    repair_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"not a checkpoint", None, "other"])
def test_a_checkpoint_that_cannot_be_read_says_what_to_do(tmp_path, content):
    path = tmp_path / "checkpoint.pth"
    if content is None:  # cut off in the middle
        write_checkpoint(tmp_path)
        path.write_bytes(path.read_bytes()[:400])
    elif content == "other":
        torch.save({"weights": 1}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match="checkpoint.pth: .*remove it to train from the start"):
        repair_checkpoints(tmp_path)


def test_a_checkpoint_with_foreign_objects_is_not_unpickled(tmp_path):
    torch.save(
        {"model": types.SimpleNamespace(), "reporter": {"epoch": 1}}, tmp_path / "checkpoint.pth"
    )
    with pytest.raises(TrainingError, match="checkpoint.pth"):
        repair_checkpoints(tmp_path)


def test_a_training_without_progress_within_its_time_limit_ends(tmp_path, monkeypatch):
    """Its job would be queued again without end."""
    ran = []
    monkeypatch.setattr(trainer.Trainer, "run", lambda **keywords: ran.append("training"))
    monkeypatch.setenv(TASK, str(tmp_path / "0"))
    folder = tmp_path / "train"
    folder.mkdir()
    options = types.SimpleNamespace(output_dir=str(folder), max_epoch=3)

    def start():
        GuardedTrainer.run(model=None, trainer_options=options)

    write_checkpoint(folder, epoch=1)
    start()
    (tmp_path / "0.stopped").write_text(json.dumps({"time_limit": True, "seconds": 50.0}))
    with pytest.raises(TrainingError, match="train: epoch 2 is longer than this job may run"):
        start()
    write_checkpoint(folder, epoch=2)
    start()
    write_checkpoint(folder, epoch=3)  # all epochs are there; what follows is averaging
    start()
    start()
    assert len(ran) == 4


def test_an_epoch_that_its_job_s_end_interrupts_notes_how_far_it_is(
    model, recorder, tmp_path, monkeypatch
):
    monkeypatch.setenv(TASK, str(tmp_path / "0"))
    monkeypatch.setattr(trainer, "LOOK_SECONDS", 0.0)
    model(wanted=1.0, utt_id=["a"])
    assert not list(tmp_path.iterdir())
    (tmp_path / "0.stop").touch()
    model(wanted=1.0, utt_id=["a"])
    record = json.loads((tmp_path / "0.training").read_text())
    assert (record["done"], record["batches"]) == (2, 2) and record["seconds"] > 0


class TwoWeights(torch.nn.Module):
    """Of two optimisers, as the pruning stage has them; the second one's gradient may overflow."""

    def __init__(self):
        super().__init__()
        self.weight, self.gate = (torch.nn.Parameter(torch.zeros(())) for _ in "ab")

    def forward(self, gradient, utt_id):
        loss = 0.001 * self.weight + gradient * self.gate
        return loss, {"loss": loss.detach()}, torch.tensor(1)


def moved(folder, gradients, scaler):
    """Where one epoch leaves the two weights, at learning rates of 1."""
    model = TwoWeights()
    optimizers = [torch.optim.SGD([p], lr=1.0) for p in model.parameters()]
    train_epoch(model, optimizers, folder, gradients, scaler=scaler)
    return [p.item() for p in model.parameters()]


def test_mixed_precision_scales_the_gradients_of_both_optimisers_alike(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    plain = moved(tmp_path, [0.5, 0.25, 0.125], None)
    assert moved(tmp_path, [0.5, 0.25, 0.125], scaler) == pytest.approx(plain)
    assert scaler.get_scale() == 2.0**11, "three updates are one growth of every two"
    assert scaler.state_dict()["_growth_tracker"] == 1
    assert "step" not in vars(scaler) and "update" not in vars(scaler)


def test_no_optimiser_steps_where_one_of_them_overflows(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    huge = 1e37  # finite, times the scale not
    found = moved(tmp_path, [0.5, huge, 0.25], scaler)
    assert found == pytest.approx(moved(tmp_path, [0.5, 0.25], None))
    assert scaler.get_scale() == 2.0**9
