"""NeMo's log-mel features, normalised per utterance, as a front-end of ESPnet.

The steps are those of NeMo's ``FilterbankFeatures`` in evaluation: pre-emphasis, frames centred in
zeros, a symmetric window, power, Slaney mel bands, the logarithm of the sum with a guard, then each
band minus its mean over its unbiased deviation. Nothing is drawn at random: NeMo's dither, which
stands in training alone, is left out. What lies behind a recording's end in a batch counts nowhere.
"""

import torch
from torch import Tensor

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.imports import importing_espnet

with importing_espnet():
    from espnet2.asr.frontend.abs_frontend import AbsFrontend

LOG_GUARD = 2.0**-24
DEVIATION_GUARD = 1e-5
WINDOWS = {"hann": "hann_window", "hamming": "hamming_window"}


class NemoFrontend(AbsFrontend):
    """Samples to features; normalisation is among them, so ``normalize`` is to be left out.

    Args:
        fs: sampling rate in Hz.
        n_fft: points of the Fourier transform.
        win_length: samples of a window.
        hop_length: samples from one frame to the next.
        n_mels: mel bands, from 0 Hz to half the sampling rate.
        window: ``hann`` or ``hamming``, symmetric.
        preemphasis: share of the sample before that is taken away; 0 for none.

    Raises:
        ModelError: an unknown window.
    """

    def __init__(
        self,
        fs: int = 16000,
        n_fft: int = 512,
        win_length: int = 400,
        hop_length: int = 160,
        n_mels: int = 80,
        window: str = "hann",
        preemphasis: float = 0.97,
    ) -> None:
        super().__init__()
        if window not in WINDOWS:
            raise ModelError(f"frontend_conf: window: {window!r}; expected one of {list(WINDOWS)}")
        import librosa

        self.n_fft = n_fft
        self.hop_length = hop_length
        self.preemphasis = preemphasis
        bands = librosa.filters.mel(sr=fs, n_fft=n_fft, n_mels=n_mels)
        shape = getattr(torch, WINDOWS[window])(win_length, periodic=False)
        # made from the configuration, so no weights of the model
        self.register_buffer("mel", torch.from_numpy(bands).T.contiguous(), persistent=False)
        self.register_buffer("window", shape, persistent=False)

    def output_size(self) -> int:
        """Number of mel bands."""
        return self.mel.shape[1]

    def least_samples(self) -> int:
        """Least number of samples that give two frames, of which a deviation can be taken."""
        return 2 * self.hop_length

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a batch.

        Args:
            input: (B, samples), full scale 1.
            input_lengths: (B,), lengths in samples.

        Returns:
            (B, T, F) and lengths (B,) in frames; zeros behind each recording's end.
        """
        lengths = input_lengths // self.hop_length
        samples = emphasise(input, self.preemphasis)
        samples = samples * _inside(input_lengths, samples.shape[1])
        energy = self._power(samples)[:, : int(lengths.max())] @ self.mel
        return normalise((energy + LOG_GUARD).log(), lengths), lengths

    def _power(self, samples: Tensor) -> Tensor:
        """(B, samples) -> (B, T, bins)."""
        spectrum = torch.stft(
            samples,
            self.n_fft,
            self.hop_length,
            len(self.window),
            self.window,
            pad_mode="constant",
            return_complex=True,
        )
        return torch.view_as_real(spectrum).square().sum(dim=-1).transpose(1, 2)


def emphasise(samples: Tensor, share: float) -> Tensor:
    """x[t] - share x[t-1] of (B, samples); the first sample stays."""
    if not share:
        return samples
    return torch.cat([samples[:, :1], samples[:, 1:] - share * samples[:, :-1]], dim=1)


def normalise(feats: Tensor, lengths: Tensor) -> Tensor:
    """Each band's mean 0 and unbiased deviation 1 over each utterance's own frames.

    Args:
        feats: (B, T, F).
        lengths: (B,), frames.

    Returns:
        (B, T, F), zeros behind each utterance's end.
    """
    kept, variance = centred(feats, lengths)
    return kept / (variance.sqrt() + DEVIATION_GUARD)


def centred(feats: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Each band less its mean over each utterance's own frames, and its unbiased variance there.

    Args:
        feats: (B, T, F).
        lengths: (B,), frames.

    Returns:
        (B, T, F), zeros behind each utterance's end, and (B, 1, F).
    """
    own = _inside(lengths, feats.shape[1])[..., None]
    number = lengths[:, None, None]
    kept = (feats - (feats * own).sum(dim=1, keepdim=True) / number) * own
    return kept, kept.square().sum(dim=1, keepdim=True) / (number - 1)


def _inside(lengths: Tensor, longest: int) -> Tensor:
    """(B,) -> (B, longest), 1 within each length and 0 behind it."""
    places = torch.arange(longest, device=lengths.device)
    return (places < lengths[:, None]).float()
