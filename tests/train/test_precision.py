"""Mixed precision on the CPU: what is bfloat16 and what isn't."""

import pytest
import torch
from torch import nn

from espnet_prune.distill.losses import kl_loss, layer_loss
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.train.model_outputs import features
from espnet_prune.train.precision import bfloat16_passes, in_bfloat16

CONFIG = {
    "token_list": ["<blank>", "<unk>", *"abcdef", "<sos/eos>"],
    "frontend": "default",
    "frontend_conf": {"fs": 16000, "n_mels": 20},
    "encoder": "conformer",
    "encoder_conf": {"output_size": 16, "attention_heads": 2, "linear_units": 24, "num_blocks": 2},
    "decoder": "transformer",
    "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
    "model_conf": {"ctc_weight": 0.5, "report_cer": False, "report_wer": False},
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_asr_model(CONFIG).eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return {
        "speech": 0.1 * torch.randn(2, 16000, generator=generator),
        "speech_lengths": torch.tensor([16000, 12000]),
        "text": torch.tensor([[2, 3, 4], [5, 6, -1]]),
        "text_lengths": torch.tensor([3, 2]),
    }


def outputs_of(model):
    """The precision of each module's output in the passes that follow, by name."""
    seen = {}

    def note(name):
        def hook(module, inputs, output):
            first = output[0] if isinstance(output, tuple) else output
            seen[name] = first.dtype if isinstance(first, torch.Tensor) else None

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(note(name))
    return seen


def test_products_are_bfloat16_features_and_losses_are_not(model, batch):
    plain = model(**batch)[0]
    seen = outputs_of(model)
    with bfloat16_passes(model):
        loss = model(**batch)[0]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain.item(), rel=0.02) and loss != plain
    assert seen["encoder.encoders.0.feed_forward.w_1"] == torch.bfloat16
    assert seen["decoder.output_layer"] == torch.bfloat16
    for name in ("frontend", "frontend.logmel", "ctc", "ctc.ctc_lo", "criterion_att"):
        assert seen[name] == torch.float32, name


@pytest.mark.parametrize("training", [True, False])
def test_a_distilled_model_s_features_are_float32_in_any_mixed_precision(model, batch, training):
    """A GPU's too, which knows none of the modules that are excepted on the CPU."""
    model.train(training)
    model.specaug = None
    speech = batch["speech"], batch["speech_lengths"]
    feats = features(model, *speech, False)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = features(model, *speech, False)[0]
        assert not torch.equal(model._extract_feats(*speech)[0], feats), "it changes nothing here"
    assert mixed.dtype == torch.float32 and torch.equal(mixed, feats)


def test_gradients_stay_float32_and_are_near(model, batch):
    model(**batch)[0].backward()
    weight = model.encoder.encoders[0].feed_forward.w_1.weight
    exact, weight.grad = weight.grad, None
    with bfloat16_passes(model):
        model(**batch)[0].backward()
    assert weight.grad.dtype == torch.float32
    assert torch.cosine_similarity(exact.ravel(), weight.grad.ravel(), dim=0) > 0.99


def test_it_ends_with_the_training_and_after_an_error(model, batch):
    plain = model(**batch)[0]
    with bfloat16_passes(model), pytest.raises(TypeError):
        model(speech=batch["speech"])
    assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(model(**batch)[0], plain)


def test_a_task_trains_in_it():
    class Trainer:
        @classmethod
        def run(cls, model, trainer_options):
            cls.dtype = model(torch.ones(1, 3)).dtype

    task = type("Task", (), {"trainer": Trainer})
    mixed = in_bfloat16(task)
    mixed.trainer.run(model=nn.Linear(3, 3), trainer_options=None)
    assert mixed.__name__ == "Task" and task.trainer is Trainer
    assert mixed.trainer.dtype == torch.bfloat16


def test_distillation_losses_are_taken_in_float32():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 8, generator=generator).bfloat16()
    valid = torch.ones(2, 5, dtype=torch.bool)
    for kind in ("mse", "l1_cosine"):
        loss = layer_loss(kind, student, teacher, valid)
        assert torch.equal(loss, layer_loss(kind, student.float(), teacher.float(), valid))
        double = layer_loss(kind, student.double(), teacher.double(), valid)
        assert double.dtype == torch.float64
    loss = kl_loss(student, teacher, valid, 2.0)
    assert torch.equal(loss, kl_loss(student.float(), teacher.float(), valid, 2.0))
