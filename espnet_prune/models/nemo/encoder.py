"""NeMo's ConformerEncoder out of ESPnet's: the same blocks, another front-end, no last norm."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.plan import Plan

with importing_espnet():
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import Conv2dSubsampling

PADDING = 1  # of both convolutions, on every side


class StridingSubsampling(Conv2dSubsampling):
    """Two convolutions of kernel 3 and stride 2, padded by one; what a batch pads stays silent.

    Args:
        input_size: width of the features.
        channels: number of channels of both convolutions.
        output_size: model dimension D.
        positions: the encoding of positions.
    """

    padding = PADDING  # what counts lengths and costs asks for it

    def __init__(
        self, input_size: int, channels: int, output_size: int, positions: nn.Module
    ) -> None:
        super().__init__(input_size, output_size, 0.0, positions)
        self.conv = Convolutions(
            nn.Conv2d(1, channels, 3, 2, PADDING),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, 2, PADDING),
            nn.ReLU(inplace=True),
        )
        self.out = nn.Linear(channels * halved(halved(input_size)), output_size)

    def forward(
        self, x: Tensor, x_mask: Tensor | None, prefix_embeds: None = None
    ) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """Features at a quarter of their rate.

        Args:
            x: (B, T, F).
            x_mask: (B, 1, T), True on real frames; None where all are.
            prefix_embeds: None; ESPnet's argument for text before the speech.

        Returns:
            (B, T', D) with the table of positions, and the mask (B, 1, T').
        """
        lengths = None if x_mask is None else x_mask.sum(dim=(1, 2))
        x = x[:, None]
        x = self.conv(x, None if lengths is None else halved(lengths))
        batch, channels, frames, bins = x.shape
        x = self.out(x.transpose(1, 2).reshape(batch, frames, channels * bins))
        if lengths is not None:
            x_mask = _inside(halved(halved(lengths)), frames)[:, None]
        return self.pos_enc(x), x_mask


class Convolutions(nn.Sequential):
    """Both convolutions with their ReLUs; the second one reads a frame behind the end."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, 1, T, F), and lengths (B,) in frames after the first one -> (B, C, T', F')."""
        x = self[1](self[0](x))
        if lengths is not None:
            inside = _inside(lengths, x.shape[2])
            x = x * inside[:, None, :, None].to(x.dtype)
        return self[3](self[2](x))


def halved(length: Any) -> Any:
    """Length after one of the two convolutions, a number or a tensor of them."""
    return (length - 1) // 2 + 1


def _inside(lengths: Tensor, longest: int) -> Tensor:
    """(B,) -> (B, longest), True within each length."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


class NemoConformerEncoder(ConformerEncoder):
    """ESPnet's Conformer with NeMo's front-end, whose last block's norm is its last.

    Args:
        input_size: width of the features.
        subsampling_channels: number of channels of the front-end's convolutions; by default the
            model dimension.
        pruned_arch: the plan of a cut model.
        **conf: options of ESPnet's ConformerEncoder, but for those that NeMo's leaves no choice.

    Raises:
        ModelError: the plan isn't one, or is of another dense encoder.
    """

    choice = "nemo_conformer"  # its name among ESPnet's encoders, dense or cut

    def __init__(
        self,
        input_size: int,
        subsampling_channels: int | None = None,
        pruned_arch: Mapping[str, Any] | None = None,
        **conf: Any,
    ) -> None:
        super().__init__(input_size, **conf, **FIXED)
        size = self.output_size()
        channels = subsampling_channels or size
        self.embed = StridingSubsampling(input_size, channels, size, self.embed.pos_enc)
        self.after_norm = nn.Identity()
        if pruned_arch is not None:
            cut_to_plan(self, Plan.from_json(pruned_arch, "encoder_conf.pruned_arch"))


FIXED = {
    "input_layer": "conv2d",
    "rel_pos_type": "latest",
    "macaron_style": True,
    "activation_type": "swish",
}
