"""Utterances with more tokens than frames are counted and named before anything is trained."""

import espnet_prune.models.espnet.choices  # noqa: F401  isort: skip  (stubs before ESPnet)
import logging

import pytest
import torch

from espnet_prune.data.alignable import check_alignable, frames_of, needed_frames
from espnet_prune.data.kaldi_dir import write_map
from espnet_prune.data.tokens import make_tokens
from espnet_prune.errors import DataError

CONFIG = {"encoder": "conformer", "frontend_conf": {"hop_length": 160}}


@pytest.fixture
def dump(tmp_path):
    """A dump folder and its tokens: 'short' has 6 frames for 7 tokens, 'equal' 6 for 6 and 5."""
    texts = {"equal": "AAAAAA", "long": "AB BA", "short": "AB ABAB"}
    write_map(tmp_path / "text", texts)
    write_map(
        tmp_path / "utt2num_samples", {"equal": "4800", "long": "16000", "short": str(27 * 160)}
    )
    make_tokens(tmp_path / "text", tmp_path / "tokens", "char", 0)
    return tmp_path


@pytest.mark.parametrize("layer", ["linear", "conv2d", "conv2d1", "conv2d2", "conv2d6", "conv2d8"])
@pytest.mark.parametrize("samples", [2560, 4800, 16001])
def test_frames_are_those_of_the_encoder(samples, layer):
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
    from espnet2.asr.frontend.default import DefaultFrontend

    front_end = DefaultFrontend(hop_length=160, n_mels=20)
    feats, lengths = front_end(torch.randn(1, samples), torch.tensor([samples]))
    sizes = {"output_size": 8, "attention_heads": 2, "num_blocks": 1, "input_layer": layer}
    _, frames, _ = ConformerEncoder(20, **sizes).eval()(feats, lengths)
    config = {**CONFIG, "encoder_conf": {"input_layer": layer}}
    assert frames_of(config, samples) == int(frames[0])


@pytest.mark.parametrize("samples", [1280, 1600, 4000, 4801])
def test_frames_are_those_of_nemo_s_encoder(samples):
    from espnet_prune.models.nemo.encoder import NemoConformerEncoder
    from espnet_prune.models.nemo.features import NemoFrontend

    front_end = NemoFrontend()
    length = torch.tensor([samples])
    feats, lengths = front_end(torch.randn(1, samples), length)
    sizes = {"output_size": 8, "attention_heads": 2, "num_blocks": 1, "linear_units": 8}
    _, frames, _ = NemoConformerEncoder(feats.shape[2], **sizes).eval()(feats, lengths)
    assert frames_of({"encoder": "nemo_conformer"}, samples) == int(frames[0])


@pytest.mark.parametrize("tokens", ["", "a", "ab", "aab", "aaaa", "abba"])
def test_as_many_frames_are_needed_as_torch_s_ctc_needs(tokens):
    needed = needed_frames(list(tokens))
    ids = torch.tensor([ord(token) - ord("a") + 1 for token in tokens])
    for frames in range(1, 9):
        log_probs = torch.zeros(frames, 1, 3).log_softmax(-1)
        loss = torch.nn.functional.ctc_loss(
            log_probs, ids[None], torch.tensor([frames]), torch.tensor([len(tokens)])
        )
        assert (loss < float("inf")) == (frames >= needed)


def test_they_are_counted_and_named(dump, caplog):
    with caplog.at_level(logging.WARNING):
        assert check_alignable(CONFIG, dump, dump / "tokens") == ["equal", "short"]
    assert "2 of 3 utterances have more tokens than frames" in caplog.text
    assert "'equal' (11 for 7 frames), 'short' (7 for 6 frames)" in caplog.text


def test_nothing_is_said_without_ctc_or_of_an_encoder_whose_frames_are_not_known(dump, caplog):
    for change in ({"model_conf": {"ctc_weight": 0.0}}, {"encoder": "rnn"}):
        assert check_alignable({**CONFIG, **change}, dump, dump / "tokens") == []
    assert not caplog.text


def test_a_set_of_which_nothing_can_be_learned_is_refused(dump):
    config = {**CONFIG, "frontend_conf": {"hop_length": 4000}}
    with pytest.raises(DataError, match="3 of 3 utterances .* a larger --vocab_size"):
        check_alignable(config, dump, dump / "tokens")
