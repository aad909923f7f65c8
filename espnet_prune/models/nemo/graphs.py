"""NeMo's front-end as a graph."""

from torch import Tensor, nn
from torch.nn import functional as F

from espnet_prune.models.espnet.graphs import fourier_kernel
from espnet_prune.models.nemo.features import DEVIATION_GUARD, LOG_GUARD, NemoFrontend, emphasise


class NemoFilterBank(nn.Module):
    """NeMo's features with their Fourier transform as a convolution.

    Args:
        frontend: a NemoFrontend.
    """

    def __init__(self, frontend: NemoFrontend) -> None:
        super().__init__()
        self.hop = frontend.hop_length
        self.padding = frontend.n_fft // 2
        self.preemphasis = frontend.preemphasis
        self.register_buffer("kernel", fourier_kernel(frontend.n_fft, frontend.window))
        self.register_buffer("mel", frontend.mel)

    def forward(self, speech: Tensor) -> Tensor:
        """(1, samples) -> (1, T, F)."""
        speech = emphasise(speech, self.preemphasis)
        padded = F.pad(speech[:, None], (self.padding, self.padding))
        parts = F.conv1d(padded, self.kernel, stride=self.hop).transpose(1, 2)
        real, imaginary = parts[:, :-1].chunk(2, dim=-1)  # NeMo leaves the last frame out
        feats = ((real.square() + imaginary.square()) @ self.mel + LOG_GUARD).log()
        centred = feats - feats.mean(dim=1, keepdim=True)
        deviation = (centred.square().sum(dim=1, keepdim=True) / (feats.shape[1] - 1)).sqrt()
        return centred / (deviation + DEVIATION_GUARD)
