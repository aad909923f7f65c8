"""Wav2Vec2-BERT's filter banks, two frames side by side, as a front-end of ESPnet.

The steps are those of transformers' ``SeamlessM4TFeatureExtractor``, which are Kaldi's: samples at
the scale of 16 bits, frames of 25 ms that all lie within the recording, each less its mean and
pre-emphasised by itself, Povey's window, power, mel bands, the logarithm with a floor. Each band
then has its mean taken away and is divided by its unbiased deviation over the recording, and every
two frames are put side by side; a last odd one is left out. What lies behind a recording's end in a
batch counts nowhere.
"""

import torch
from torch import Tensor, nn

from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.huggingface.build import import_transformers
from espnet_prune.models.nemo.features import centred
from espnet_prune.models.wav2vec2_bert.family import STRIDE

with importing_espnet():
    from espnet2.asr.frontend.abs_frontend import AbsFrontend

FULL_SCALE = 2.0**15
WIDTH, SHIFT, TRANSFORM = 400, 160, 512  # samples, at whatever rate
PREEMPHASIS = 0.97
POWER_FLOOR = 2.0**-23  # Kaldi's, the spacing of float32 at 1
VARIANCE_GUARD = 1e-7


class StackedFilterBank(AbsFrontend):
    """Samples to features; normalisation is among them, so ``normalize`` is to be left out.

    Args:
        fs: sampling rate in Hz.
        n_mels: mel bands of a frame, from 20 Hz to half the sampling rate.

    Raises:
        ModelError: more bands than the points of the Fourier transform can tell apart.
    """

    hop_length = STRIDE * SHIFT

    def __init__(self, fs: int = 16000, n_mels: int = 80) -> None:
        super().__init__()
        theirs = import_transformers().SeamlessM4TFeatureExtractor(
            sampling_rate=fs, num_mel_bins=n_mels
        )
        # made from the configuration, so no weights of the model
        self.register_buffer("mel", torch.from_numpy(theirs.mel_filters), persistent=False)
        self.register_buffer("window", torch.from_numpy(theirs.window), persistent=False)

    def output_size(self) -> int:
        """Mel bands of two frames."""
        return STRIDE * self.mel.shape[1]

    def least_samples(self) -> int:
        """Least number of samples that give two frames, of which a deviation can be taken."""
        return WIDTH + SHIFT

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a batch.

        Args:
            input: (B, samples), full scale 1.
            input_lengths: (B,), lengths in samples.

        Returns:
            (B, T, 2 F) and lengths (B,) in pairs of frames; zeros behind each recording's last
            frame.
        """
        lengths = (input_lengths - WIDTH) // SHIFT + 1
        feats = self.log_mel(self.spectrum(frames_of(input)))
        return stacked(normalise(feats, lengths)), lengths // STRIDE

    def spectrum(self, frames: Tensor) -> Tensor:
        """(..., WIDTH) samples -> (..., bins, 2), real and imaginary parts."""
        frames = FULL_SCALE * (frames - frames.mean(dim=-1, keepdim=True))
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        windowed = (frames - PREEMPHASIS * before) * self.window.double()
        return torch.view_as_real(torch.fft.rfft(windowed, TRANSFORM))

    def log_mel(self, spectrum: Tensor) -> Tensor:
        """(..., bins, 2) -> (..., F)."""
        power = spectrum.square().sum(dim=-1) @ self.mel.double()
        return power.clamp(min=POWER_FLOOR).log()


def frames_of(samples: Tensor) -> Tensor:
    """(B, samples) -> (B, T, WIDTH), in double precision, as transformers takes the transform.

    The deviation of few frames that are much alike needs it, too.
    """
    return samples.double().unfold(1, WIDTH, SHIFT)


def normalise(feats: Tensor, lengths: Tensor) -> Tensor:
    """Each band's mean 0 and unbiased deviation 1 over each utterance's own frames.

    Args:
        feats: (B, T, F).
        lengths: (B,), frames.

    Returns:
        (B, T, F), zeros behind each utterance's end, in single precision.
    """
    kept, variance = centred(feats, lengths)
    return (kept / (variance + VARIANCE_GUARD).sqrt()).float()


def stacked(feats: Tensor) -> Tensor:
    """Every two frames side by side: (B, T, F) -> (B, T // 2, 2 F)."""
    last = feats.shape[1] - 1
    return torch.cat([feats[:, :last:STRIDE], feats[:, 1::STRIDE]], dim=-1)


class StackedFilterBankGraph(nn.Module):
    """The same for one recording without padding, the Fourier transform being a product.

    Args:
        frontend: a StackedFilterBank.
    """

    def __init__(self, frontend: StackedFilterBank) -> None:
        super().__init__()
        self.frontend = frontend
        # up to the power, every step is linear
        kernel = frontend.spectrum(torch.eye(WIDTH, dtype=torch.float64))
        self.register_buffer("kernel", kernel.flatten(1))

    def forward(self, speech: Tensor) -> Tensor:
        """(1, samples) -> (1, T, 2 F)."""
        spectrum = (frames_of(speech) @ self.kernel).unflatten(-1, (-1, 2))
        feats = self.frontend.log_mel(spectrum)
        return stacked(normalise(feats, feats.new_full((1,), feats.shape[1])))
