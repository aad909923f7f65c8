"""The whole loss of stages 8 and 10 against numbers worked out here, by hand and in float64.

A stub stands for ESPnet's model, whose outputs are given; only what joins them is under test.
"""

import math
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn

from espnet_prune.distill import DistillConfig
from espnet_prune.errors import ConfigError
from espnet_prune.methods.options import IntermediateCtcConfig, StudentConfig
from espnet_prune.models.family import Encoded
from espnet_prune.train import model_outputs
from espnet_prune.train.distilled_model import DistilledModel
from espnet_prune.train.model_outputs import Outputs

FRAMES, SIZE, VOCABULARY, BLOCKS = 5, 3, 4, 4
LENGTHS = (5, 3)  # frames of the two utterances
TEXT = torch.tensor([[1, 2], [2, -1]])
TEXT_LENGTHS = torch.tensor([2, 1])
CTC_LOSS, ATTENTION_LOSS, CTC_WEIGHT = 7.0, 11.0, 0.3
ARGUMENTS = {
    "speech": torch.zeros(2, 9),
    "speech_lengths": torch.tensor([9, 9]),
    "text": TEXT,
    "text_lengths": TEXT_LENGTHS,
    "utt_id": ["one", "two"],
}


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Encoder(nn.Module):
    """Gives hidden states that are drawn once; the last one is its output."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.states = nn.ParameterList(drawn(seed + b, 2, FRAMES, SIZE) for b in range(BLOCKS))
        self.encoders = nn.ModuleList(nn.Identity() for _ in range(BLOCKS))
        self.norm = nn.BatchNorm1d(SIZE)
        self.dropout = nn.Dropout(0.3)

    def output_size(self) -> int:
        return SIZE


class Family:
    """Of the stub's encoders."""

    @staticmethod
    def encode(model, feats, lengths):
        states = list(model.encoder.states)
        return Encoded(states[-1], torch.tensor(LENGTHS), states)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(model_outputs, "find_family", lambda encoder: Family)


class Student(nn.Module):
    """What the loss asks of an ESPnetASRModel."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.encoder = Encoder(seed)
        self.ctc = _Ctc(seed + 50)
        self.decoder = _Decoder(drawn(seed + 60, 2, 3, VOCABULARY))
        self.criterion_att = lambda scores, targets: torch.tensor(ATTENTION_LOSS)
        self.specaug = self.normalize = None
        self.use_transducer_decoder = self.use_linear_decoder = False
        self.ctc_weight, self.ignore_id, self.vocab_size = CTC_WEIGHT, -1, VOCABULARY
        self.sos = self.eos = VOCABULARY - 1

    def _extract_feats(self, speech, lengths):
        return speech, lengths


class _Ctc(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(SIZE, VOCABULARY)
        self.ctc_lo.weight.data = drawn(seed, VOCABULARY, SIZE)

    def forward(self, encoded, lengths, text, text_lengths):
        return torch.tensor(CTC_LOSS)


class _Decoder(nn.Module):
    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, encoded, lengths, inputs, input_lengths):
        return self.scores, input_lengths


def softmax(logits: torch.Tensor) -> numpy.ndarray:
    exponents = numpy.exp(logits.detach().double().numpy())
    return exponents / exponents.sum(axis=-1, keepdims=True)


def divergence(student: torch.Tensor, teacher: torch.Tensor, places, temperature: float) -> float:
    """Sum over places of KL(teacher || student), temperature squared."""
    total = 0.0
    for place in places:
        p, q = softmax(teacher[place] / temperature), softmax(student[place] / temperature)
        total += float((p * numpy.log(p / q)).sum())
    return total * temperature**2


def layer_distance(student: torch.Tensor, teacher: torch.Tensor, places) -> float:
    """Mean squared difference over the teacher's variance, over places."""
    one = numpy.stack([student[p].detach().double().numpy() for p in places])
    other = numpy.stack([teacher[p].detach().double().numpy() for p in places])
    return float(((one - other) ** 2).mean() / ((other - other.mean(axis=0)) ** 2).mean())


def expected_loss(student: Student, teacher: Student, config: DistillConfig) -> float:
    """Everything for one utterance: sums over frames and tokens, divided by the two utterances."""
    frames = [(u, t) for u, length in enumerate(LENGTHS) for t in range(length)]
    tokens = [(u, t) for u, length in enumerate(TEXT_LENGTHS.tolist()) for t in range(length + 1)]
    label = CTC_WEIGHT * CTC_LOSS + (1 - CTC_WEIGHT) * ATTENTION_LOSS
    layers = [
        layer_distance(student.encoder.states[b], teacher.encoder.states[b], frames)
        for b in range(BLOCKS)
    ]
    ctc = [model.ctc.ctc_lo(model.encoder.states[-1]) for model in (student, teacher)]
    decoded = [model.decoder.scores for model in (student, teacher)]
    return (
        config.label_weight * label
        + config.layer_weight * len(frames) / 2 * sum(layers) / BLOCKS
        + config.ctc_weight * divergence(*ctc, frames, config.temperature) / 2
        + config.attention_weight * divergence(*decoded, tokens, config.temperature) / 2
    )


WEIGHTS = {"label_weight": 0.7, "layer_weight": 1.3, "ctc_weight": 0.4, "attention_weight": 2.1}


@pytest.mark.parametrize("zero", [None, *WEIGHTS])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_whole_loss_is_the_sum_worked_out_here(zero, temperature):
    weights = {name: 0.0 if name == zero else weight for name, weight in WEIGHTS.items()}
    config = DistillConfig(**weights, temperature=temperature)
    student, teacher = Student(0), Student(100)
    model = DistilledModel(student, teacher, config, StudentConfig())
    loss, stats, _ = model(**ARGUMENTS)
    wanted = expected_loss(student, teacher, config)
    assert math.isclose(float(loss.detach()), wanted, rel_tol=1e-5)
    assert float(stats["loss"]) == pytest.approx(wanted, rel=1e-5)
    assert float(stats["loss_label"]) == pytest.approx(0.3 * 7 + 0.7 * 11)


def test_the_linear_map_stands_between_student_and_teacher():
    student, teacher = Student(0), Student(100)
    model = DistilledModel(student, teacher, DistillConfig(), StudentConfig())
    before = float(model(**ARGUMENTS)[0].detach())
    with torch.no_grad():
        model.layerwise.map.weight.zero_()
    zeros = [torch.zeros_like(state) for state in student.encoder.states]
    frames = [(u, t) for u, length in enumerate(LENGTHS) for t in range(length)]
    without, mapped = (
        sum(
            layer_distance(state, their, frames)
            for state, their in zip(states, teacher.encoder.states, strict=True)
        )
        for states in (student.encoder.states, zeros)
    )
    after = float(model(**ARGUMENTS)[0].detach())
    assert after - before == pytest.approx((mapped - without) / BLOCKS * 4, rel=1e-4)


def test_a_gated_student_has_its_size_term_besides():
    student, teacher = Student(0), Student(100)
    gated = SimpleNamespace()  # set aside of the constructor, which asks for more
    model = DistilledModel(student, teacher, DistillConfig(), StudentConfig())
    alone = float(model(**ARGUMENTS)[0].detach())
    model.gated = gated
    model._modules["plain"] = student
    gated.model, gated.open_attention = student, None
    gated.expected_sparsity = lambda: torch.tensor(0.25)
    gated.hard_sparsity = lambda: 0.5
    gated.controller = SimpleNamespace(values=dict)
    model.method = SimpleNamespace(
        loss=lambda _: torch.tensor(5.0, dtype=torch.float64), target_now=lambda _: 0.3
    )
    loss, stats, _ = model(**ARGUMENTS)
    assert float(loss.detach()) == pytest.approx(alone + 5.0)
    sizes = [float(stats[f"{n}_sparsity"]) for n in ("target", "expected", "hard")]
    assert sizes == pytest.approx([0.3, 0.25, 0.5])


def test_kept_outputs_stand_for_the_teacher():
    student, teacher, other = Student(0), Student(100), Student(200)

    class Kept:
        def batch(self, utterances):
            assert utterances == ["one", "two"]
            hidden = dict(enumerate(teacher.encoder.states))
            logits = teacher.ctc.ctc_lo(teacher.encoder.states[-1]).detach()
            return Outputs(None, None, hidden, logits, teacher.decoder.scores, None)

    config = DistillConfig(**WEIGHTS)
    model = DistilledModel(student, other, config, StudentConfig(), kept=Kept())
    loss, _, _ = model(**ARGUMENTS)
    assert float(loss.detach()) == pytest.approx(expected_loss(student, teacher, config), rel=1e-5)


def test_kept_outputs_and_spec_augment_are_refused():
    student = Student(0)
    student.specaug = nn.Identity()
    with pytest.raises(ConfigError, match="keep_teacher_outputs.*spec_augment: false"):
        DistilledModel(student, Student(1), DistillConfig(), StudentConfig(), kept=object())


@pytest.mark.parametrize("statistics, trains", [("frozen", False), ("updated", True)])
def test_norms_are_frozen_or_updated_and_dropout_is_set(statistics, trains):
    options = StudentConfig(norm_statistics=statistics, dropout=0.1)
    model = DistilledModel(Student(0), Student(1), DistillConfig(), options).train()
    assert model.student.encoder.norm.training is trains
    assert model.student.encoder.dropout.training
    assert model.student.encoder.dropout.p == 0.1
    left = DistilledModel(Student(0), Student(1), DistillConfig(), StudentConfig(dropout=None))
    assert left.student.encoder.dropout.p == 0.3


def test_blocks_before_the_last_have_a_ctc_loss_too():
    chosen = StudentConfig(
        intermediate_ctc=IntermediateCtcConfig(blocks=1, weight=0.25), stochastic_depth=0.2
    )
    student = Student(0)
    student.encoder.after_norm = nn.Identity()
    student.ctc.forward = lambda encoded, *unused: encoded.sum()
    config = DistillConfig(layer_weight=0.0, ctc_weight=0.0, attention_weight=0.0)
    loss, stats, _ = DistilledModel(student, Student(1), config, chosen)(**ARGUMENTS)
    last, middle = (float(student.encoder.states[b].sum()) for b in (3, 1))
    expected = CTC_WEIGHT * (0.75 * last + 0.25 * middle) + (1 - CTC_WEIGHT) * ATTENTION_LOSS
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(stats["loss_intermediate_ctc"]) == pytest.approx(middle, rel=1e-5)
    assert {block.stochastic_depth_rate for block in student.encoder.encoders} == {0.2}
    with pytest.raises(ConfigError, match="intermediate_ctc: Encoder has no CTC, or no norm"):
        DistilledModel(Student(0), Student(1), config, chosen)


def test_balanced_distillation_weighs_what_the_teacher_seldom_says():
    student, teacher = Student(0), Student(100)
    plain = DistilledModel(student, teacher, DistillConfig(), StudentConfig())
    before = {key: float(value) for key, value in plain(**ARGUMENTS)[1].items()}
    model = DistilledModel(student, teacher, DistillConfig(balance=0.99), StudentConfig()).train()
    stats = model(**ARGUMENTS)[1]
    assert float(model.balances["ctc"].seen.sum()) == pytest.approx(sum(LENGTHS))
    assert float(model.balances["attention"].seen.sum()) == pytest.approx(5)
    for part in ("loss_ctc_kl", "loss_att_kl"):
        assert float(stats[part]) != pytest.approx(before[part], rel=1e-3)
    assert float(stats["loss_layer"]) == pytest.approx(before["loss_layer"])


def test_ctc_outputs_are_compared_where_the_teacher_says_a_token():
    student, teacher = Student(0), Student(100)
    found = {}
    for context in (None, 0, 1000):
        config = DistillConfig(blank_context=context, layer_weight=0.0, attention_weight=0.0)
        model = DistilledModel(student, teacher, config, StudentConfig()).eval()
        _, stats, _ = model(**ARGUMENTS)
        found[context] = (float(stats["loss"] - stats["loss_label"]), float(stats["loss_ctc_kl"]))
    assert found[1000] == pytest.approx(found[None])
    assert 0 < found[0][0] < found[None][0], "fewer frames' sum"
    assert found[0][1] != pytest.approx(found[None][1], rel=1e-3)


def test_a_batch_in_which_the_teacher_says_nothing_has_no_part_of_ctc_s_outputs():
    student, teacher = Student(0), Student(100)
    with torch.no_grad():
        teacher.ctc.ctc_lo.bias[0] += 1e4
    config = DistillConfig(blank_context=0, layer_weight=0.0, attention_weight=0.0)
    _, stats, _ = DistilledModel(student, teacher, config, StudentConfig())(**ARGUMENTS)
    assert float(stats["loss_ctc_kl"]) == 0.0
    assert float(stats["loss"]) == pytest.approx(float(stats["loss_label"]))
