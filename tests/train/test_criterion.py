"""What the best epochs are chosen by must be reported; what can't be pruned is told at once."""

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
from argparse import Namespace
from functools import partial

import numpy
import pytest
import torch
from espnet2.train.reporter import to_reported_value

from espnet_prune.data.audio_io import write_audio
from espnet_prune.errors import ConfigError, DataError, ModelError, TrainingError
from espnet_prune.models.conformer.fast_training import slow_down_training
from espnet_prune.train.criterion import check_criterion
from espnet_prune.train.ladder_trainer import LadderTrainer
from espnet_prune.train.teacher_task import TeacherTask
from espnet_prune.train.trainer import GuardedTrainer
from espnet_prune.train.training import check_rate

NONE = float("nan")  # what ESPnet keeps for a number that is None


def check(*criterion: str, **reported: float) -> None:
    stats = {name: [to_reported_value(value, 1)] for name, value in reported.items()}
    check_criterion(Namespace(best_model_criterion=[criterion], output_dir="exp/x/train"), stats)


def test_a_reported_number_is_taken():
    check("valid", "acc", "max", loss=1.0, acc=0.5)
    check("train", "loss", "min", loss=1.0)


@pytest.mark.parametrize(
    ("criterion", "reported"),
    [
        (("valid", "accuracy", "max"), {"loss": 1.0, "acc": 0.5}),
        (("valid", "acc", "max"), {"loss": 1.0, "acc": NONE}),
        (("test", "loss", "min"), {"loss": 1.0}),
    ],
)
def test_another_is_named_with_those_that_are_there(criterion, reported):
    with pytest.raises(TrainingError) as caught:
        check(*criterion, **reported)
    message = str(caught.value)
    for part in (f"[{criterion[0]}, {criterion[1]}]", "loss", "exp/x/train", "remove this folder"):
        assert part in message
    assert NONE not in reported.values() or "valid: loss;" in message


def test_masks_are_cut_as_they_are_last_whatever_is_reported():
    assert GuardedTrainer.averages and not LadderTrainer.averages


def build(encoder: str, encoder_conf: dict, criterion=("valid", "loss", "min"), **model_conf):
    sizes = {"output_size": 16, "attention_heads": 2, "linear_units": 24, "num_blocks": 2}
    args, _ = TeacherTask.get_parser().parse_known_args([])
    values = {
        "token_list": ["<blank>", "<unk>", "A", "<sos/eos>"],
        "frontend_conf": {"n_mels": 20},
        "encoder": encoder,
        "encoder_conf": {**sizes, **encoder_conf},
        "model_conf": {"ctc_weight": 1.0, **model_conf},
        "best_model_criterion": [criterion],
    }
    vars(args).update(values)
    return TeacherTask.build_model(args)


FAST = {"attention_layer_type": "fast_selfattn", "pos_enc_layer_type": "abs_pos"}
CONFORMER = {"macaron_style": True, "rel_pos_type": "latest", "cnn_module_kernel": 5}


def test_a_teacher_s_parts_are_the_fast_ones_which_give_espnet_s_outputs():
    quiet = {"dropout_rate": 0.0, "positional_dropout_rate": 0.0, "attention_dropout_rate": 0.0}
    encoder = build("conformer", {**CONFORMER, **quiet}).encoder
    feats = torch.randn(2, 60, 20, generator=torch.Generator().manual_seed(1))
    inputs = feats, torch.tensor([60, 44])
    fast = encoder(*inputs)[0]
    assert any(isinstance(m.__dict__.get("forward"), partial) for m in encoder.modules())
    slow_down_training(encoder)
    torch.testing.assert_close(fast, encoder(*inputs)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "conf", "named"),
    [
        ("e_branchformer", FAST, "attn is FastSelfAttention, which isn't known; known are Multi"),
        ("conformer", {**CONFORMER, "concat_after": True}, "concat_after: true can't be pruned"),
        ("conformer", {**CONFORMER, "ctc_trim": True}, "ctc_trim"),
    ],
)
def test_one_that_no_stage_could_prune_is_refused_before_its_training(encoder, conf, named):
    with pytest.raises(ModelError, match=named):
        build(encoder, conf)


def test_a_ctc_model_is_not_chosen_by_a_decoder_s_accuracy():
    with pytest.raises(ConfigError, match=r"\[valid, acc, max\]: the model has no attention dec"):
        build("conformer", CONFORMER, criterion=("valid", "acc", "max"))


def test_a_front_end_of_another_rate_than_the_data_is_refused(tmp_path):
    write_audio(tmp_path / "a.flac", numpy.ones(800, numpy.int16), 16000)
    (tmp_path / "wav.scp").write_text(f"u1 {tmp_path / 'a.flac'}\n")
    check_rate({"frontend_conf": {"n_mels": 20}}, tmp_path)
    with pytest.raises(DataError, match="u1 is sampled at 16000 Hz, but the front-end reads 8000"):
        check_rate({"frontend_conf": {"fs": "8k"}}, tmp_path)
