"""Beams wider than the vocabulary, very short recordings, limits that leave no text."""

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
import logging
import string

import numpy
import pytest
import torch

from espnet_prune.cli import main
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.prefix_search import prefix_search
from espnet_prune.decode.recogniser import Recogniser, ctc_log_probs
from espnet_prune.errors import ConfigError
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.espnet.features import least_samples
from espnet_prune.models.espnet.folder import write_espnet_folder

SPECIAL = ("<blank>", "<unk>", "<sos/eos>")
ENCODER = {
    "output_size": 16,
    "attention_heads": 2,
    "linear_units": 24,
    "num_blocks": 1,
    "macaron_style": True,
    "rel_pos_type": "latest",
    "cnn_module_kernel": 5,
}


def write_model(folder, letters: int, seed: int = 0, **settings):
    """A model of random weights whose tokens are so many letters, the space and ESPnet's three."""
    torch.manual_seed(seed)
    model = build_asr_model(
        {
            "token_list": [*SPECIAL[:2], *string.ascii_lowercase[:letters], "<space>", SPECIAL[2]],
            "token_type": "char",
            "frontend_conf": {"n_mels": 20},
            "normalize": "utterance_mvn",
            "encoder": "conformer",
            "encoder_conf": ENCODER,
            "decoder": "transformer",
            "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
            **settings,
        }
    ).eval()
    torch.nn.init.normal_(model.ctc.ctc_lo.weight, 0.0, 3.0)  # so that texts aren't all blank
    write_espnet_folder(model, folder / "espnet")
    return folder


def noise(samples: int, seed: int = 0) -> numpy.ndarray:
    return numpy.random.default_rng(seed).normal(0, 3000, samples).astype(numpy.int16)


@pytest.mark.parametrize("letters", [1, 4, 5, 8, 11])
def test_a_beam_wider_than_the_vocabulary_is_one_of_all_tokens(letters, tmp_path, caplog):
    folder, tokens = write_model(tmp_path, letters), letters + 4
    with caplog.at_level(logging.INFO):
        wide = Recogniser(folder, DecodeConfig(beam_size=1000))
    assert f"beam_size 1000, but {tokens} tokens" in caplog.text
    fitting = Recogniser(folder, DecodeConfig(beam_size=tokens))
    for mode in ("joint", "ctc_prefix"):
        text = wide.transcribe(noise(16000), mode)
        assert text == fitting.transcribe(noise(16000), mode)


@pytest.mark.parametrize("ctc_weight", [0.3, 1.0])
@pytest.mark.parametrize("letters", [3, 6, 8, 9])
def test_few_tokens_do_not_let_impossible_texts_win(letters, ctc_weight, tmp_path):
    """The blank is never a part of a text; by CTC alone the joint search is the prefix search."""
    for seed in range(3):
        folder = write_model(tmp_path / str(seed), letters, seed)
        recogniser = Recogniser(folder, DecodeConfig(beam_size=10, ctc_weight=ctc_weight))
        samples = noise(16000, seed)
        text = recogniser.transcribe(samples, "joint")
        best = recogniser.search(samples.astype(numpy.float32) / 32768)[0][3]
        assert 0 not in best.yseq and best.scores["ctc"] > -1e5
        if ctc_weight == 1:
            log_probs = ctc_log_probs(recogniser.model, samples.astype(numpy.float32) / 32768)
            ids, _ = prefix_search(log_probs, 0, 10, never=(letters + 3,))
            assert text == " ".join(recogniser._text(ids).split()) != ""


@pytest.mark.parametrize("mode", ["greedy", "ctc_prefix", "joint"])
def test_no_special_token_leaves_the_decoding_of_any_length(mode, tmp_path):
    found = set()
    for seed in range(4):
        folder = write_model(tmp_path / str(seed), 5, seed)
        recogniser = Recogniser(folder, DecodeConfig(beam_size=4))
        least = least_samples(recogniser.model)
        for samples in (least, least + 1, 2400, 4000, 8000):
            text = recogniser.transcribe(noise(samples, seed), mode)
            assert not any(token in text for token in ("<", ">", "⁇"))
            found.update(text)
    assert found & set("abcde")


def test_special_tokens_are_left_out_wherever_a_search_puts_them(tmp_path):
    recogniser = Recogniser(write_model(tmp_path, 2), DecodeConfig())
    assert recogniser._text([5, 0, 2, 1, 4, 5, 3, 5]) == "a b"


def test_a_shortest_text_that_no_recording_has_does_not_empty_it(tmp_path):
    folder = write_model(tmp_path, 5)
    free = Recogniser(folder, DecodeConfig(beam_size=4))
    bound = Recogniser(folder, DecodeConfig(beam_size=4, minlenratio=-500.0))
    assert bound.transcribe(noise(8000), "joint") == free.transcribe(noise(8000), "joint") != ""
    longer = Recogniser(folder, DecodeConfig(beam_size=4, minlenratio=-12.0))
    assert len(longer.transcribe(noise(16000), "joint").replace(" ", "")) > 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("beam_size", "0", "beam_size: 0 is out of range"),
        ("penalty", ".inf", "penalty: inf is out of range"),
        ("maxlenratio", ".nan", "maxlenratio: nan is out of range"),
        ("minlenratio", "99", "minlenratio: 99"),
        ("maxlenratio", "0.2\nminlenratio: 0.5", "minlenratio: 0.5 is more than maxlenratio: 0.2"),
        ("beam", "3", "unknown key"),
    ],
)
def test_wrong_limits_are_refused_before_anything_is_trained(tmp_path, capsys, key, value, message):
    path = tmp_path / "decode.yaml"
    path.write_text(f"{key}: {value}\n")
    assert main(["check_decoding", "--config", str(path)]) == 2
    assert message in capsys.readouterr().err
    path.write_text("beam_size: 3\n")
    assert main(["check_decoding", "--config", str(path)]) == 0


def test_a_number_of_tokens_and_a_share_of_frames_are_not_compared():
    DecodeConfig(maxlenratio=0.5, minlenratio=-3.0)
    with pytest.raises(ConfigError, match="minlenratio: -5.0 is more than maxlenratio: -4.0"):
        DecodeConfig(maxlenratio=-4.0, minlenratio=-5.0)
