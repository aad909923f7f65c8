"""Samples beyond full scale, silence, and channels that cancel each other are told of."""

import numpy
import pytest
import soundfile

from espnet_prune.cli import main
from espnet_prune.data.audio_io import examine, read_speech
from espnet_prune.errors import DataError


@pytest.fixture
def speech():
    """Noise of a speech's level (samples,), within -1 to 1."""
    return numpy.random.default_rng(0).normal(0, 0.1, 8000)


@pytest.fixture
def written(tmp_path):
    """A function that writes samples as floating-point WAV."""

    def write(samples: numpy.ndarray, subtype: str = "FLOAT") -> str:
        path = tmp_path / "a.wav"
        soundfile.write(path, samples, 16000, subtype=subtype)
        return str(path)

    return write


@pytest.mark.parametrize("factor", [32768, 100])
def test_samples_scaled_as_integers_are_refused_with_the_remedy(written, speech, factor):
    with pytest.raises(DataError, match="where full scale is 1.*divide them, as by `sox --norm"):
        examine(written(speech * factor), "here")


def test_samples_that_are_clipped_are_told_by_their_share(written, speech):
    loud = numpy.clip(speech * 20, -3, 3)
    (note,) = examine(written(loud), "here").notes
    share = 100 * (abs(loud) > 1).mean()
    assert note.startswith(f"{share:.1f}% of its samples are beyond full scale and are clipped")
    assert not examine(written(speech), "here").notes
    assert not examine(written(speech / abs(speech).max() * 1.2), "here").notes


@pytest.mark.parametrize(("level", "subtype"), [(1e-6, "FLOAT"), (1e-6, "PCM_24"), (0, "PCM_16")])
def test_what_is_silent_in_16_bits_is_told(written, speech, level, subtype):
    (note,) = examine(written(speech * level, subtype), "here").notes
    assert "vary by no more than two steps of 16 bits" in note


def test_a_constant_is_silence(written, speech):
    (note,) = examine(written(0 * speech + 0.9, "PCM_16"), "here").notes
    assert "silence" in note


def test_notes_are_told_of_all_utterances_at_once_and_again(data, capsys, caplog):
    for name in ("a-1", "a-2", "b-1", "b-2"):
        soundfile.write(data / f"source/{name}.wav", numpy.zeros(800, numpy.int16), 16000)
    for _ in range(2):
        caplog.clear()
        assert main(["validate_data", str(data)]) == 0
        assert "'a-1', 'a-2', 'b-1' and 1 more: its samples vary" in caplog.text
        assert "4 utterances" in capsys.readouterr().out


def test_channels_that_cancel_each_other_are_refused_and_one_can_be_taken(written, speech):
    path = written(numpy.stack([speech, -speech], axis=1), "PCM_16")
    with pytest.raises(DataError, match="2 channels cancel each other.*--channel 1"):
        read_speech(path, 16000)
    one, averaged = read_speech(path, 16000, channel=2)
    assert averaged == 1
    numpy.testing.assert_allclose(one.samples / 32768, -speech, atol=1e-4)
    with pytest.raises(DataError, match="has 2 channels, so there is no channel 3"):
        read_speech(path, 16000, channel=3)


def test_independent_channels_do_not_cancel(written):
    channels = numpy.random.default_rng(1).normal(0, 0.1, (8000, 8))
    found, averaged = read_speech(written(channels), 16000)
    assert averaged == 8 and found.samples.any()
