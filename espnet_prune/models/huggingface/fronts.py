"""What models of transformers share whose front-ends are convolutions over time."""

from torch import Tensor, nn

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

    def forward(self, x: Tensor) -> Tensor:
        """(B, any, T) -> (B, channels, T'), the same at all times."""
        padded = x.shape[-1] + 2 * self.padding[0]
        frames = (padded - self.kernel_size[0]) // self.stride[0] + 1
        silence = x.new_zeros(x.shape[0], self.channels, frames)
        return silence if self.bias is None else silence + self.bias[:, None].to(x.dtype)


def is_silent(model: nn.Module) -> bool:
    """Whether a convolution of its front-end has no channel left."""
    return any(isinstance(module, SilentConvolution) for module in model.modules())
