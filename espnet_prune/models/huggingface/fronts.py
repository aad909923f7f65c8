"""What models of transformers share whose front-ends are convolutions over time."""

from torch import Tensor, nn

from espnet_prune.sites import masked, norm
from espnet_prune.sites.base import FRONT_END_CHANNEL

FRONT_END = "front_end"


class SilentConvolution(nn.Module):
    """Stands for a convolution that has no output channel, or no input channel, left.

    Args:
        convolution: that one, or what already stands for it; of its outputs the bias is left.
        channels: number of channels of the output; 0, or those of the convolution.
    """

    def __init__(self, convolution: nn.Conv1d, channels: int) -> None:
        super().__init__()
        self.kernel_size, self.stride = convolution.kernel_size, convolution.stride
        self.padding = convolution.padding
        self.channels = channels
        bias = convolution.bias if channels else None
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def keep(self, kept: Tensor) -> None:
        """Keeps the outputs ``kept``."""
        self.channels = len(kept)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach()[kept].clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, any, T) -> (B, channels, T'), the same at all times."""
        padded = x.shape[-1] + 2 * self.padding[0]
        frames = (padded - self.kernel_size[0]) // self.stride[0] + 1
        silence = x.new_zeros(x.shape[0], self.channels, frames)
        return silence if self.bias is None else silence + self.bias[:, None].to(x.dtype)


class ChannelSite(norm.NormedSite):
    """Channels of one of an encoder's convolutions, which the next one alone reads.

    The sites must be cut in order.

    Args:
        index: the convolution's.
        encoder: has it and the next one.
        maker: attribute of the one that makes the channels.
        reader: that of the next one.
        between: that of a norm between them.
    """

    def __init__(
        self, index: int, encoder: nn.Module, maker: str, reader: str, between: str | None = None
    ) -> None:
        self.encoder = encoder
        self.maker, self.reads, self.between = maker, reader, between
        self.producer = getattr(encoder, maker)
        super().__init__(
            f"{FRONT_END}.{index}",
            FRONT_END_CHANNEL,
            self.producer.out_channels,
            consumer=getattr(encoder, reader),
        )

    def norms(self) -> list[nn.Module]:
        return [] if self.between is None else [getattr(self.encoder, self.between)]

    def layers(self) -> list[nn.Module]:
        return [self.producer, self.consumer]

    def unit_weights(self) -> list[Tensor]:
        return [self.producer.weight, self.read_weights()]

    def made_by(self) -> list[Tensor]:
        made_by = [t for m in (self.producer, *self.norms()) for t in (m.weight, m.bias)]
        return [tensor.detach() for tensor in made_by if tensor is not None]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        """Cuts the channels; without any, the next convolution's bias is left."""
        now = getattr(self.encoder, self.maker)
        if not len(kept):
            silent = SilentConvolution(self.consumer, self.consumer.out_channels)
            setattr(self.encoder, self.maker, SilentConvolution(now, 0))
            setattr(self.encoder, self.reads, silent)
            if self.between is not None:
                setattr(self.encoder, self.between, nn.Identity())
            return
        self.cut_consumer(kept, values)
        if isinstance(now, SilentConvolution):
            now.keep(kept)
        else:
            masked.keep_outputs(now, kept)
        for between in self.norms():
            norm.keep(between, kept)


def is_silent(model: nn.Module) -> bool:
    """Whether a convolution of its front-end has no channel left."""
    return any(isinstance(module, SilentConvolution) for module in model.modules())
