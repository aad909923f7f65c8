"""Attention heads, whatever a library calls the parts of an attention module.

A head of width d_k is masked at the columns of the layer that reads the heads, and cut from the
rows of those that make queries, keys and values.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from espnet_prune.sites.base import HEAD, LinearSite


@dataclass(frozen=True)
class AttentionNames:
    """Attributes of an attention module.

    Attributes:
        heads: their number, which the cut changes; None where it needs no telling.
        head_width: a head's width d_k, which stays as it is.
        output: the layer that reads them.
        inputs: the layers that make them.
        per_head: parameters (heads, ...) besides, such as biases of relative positions.
    """

    heads: str | None
    head_width: str
    output: str
    inputs: tuple[str, ...]
    per_head: tuple[str, ...] = ()

    @property
    def matrices(self) -> tuple[str, ...]:
        """All of its layers."""
        return (*self.inputs, self.output)


TRANSFORMERS = AttentionNames("num_heads", "head_dim", "out_proj", ("q_proj", "k_proj", "v_proj"))
ESPNET = AttentionNames("h", "d_k", "linear_out", ("linear_q", "linear_k", "linear_v"))
ESPNET_RELATIVE = AttentionNames(
    "h", "d_k", "linear_out", (*ESPNET.inputs, "linear_pos"), ("pos_bias_u", "pos_bias_v")
)


class HeadSite(LinearSite):
    """Heads of one attention module.

    Args:
        attention: the module.
        names: names of its parts.
        block: its block.
        branch: name of the branch that it is.
    """

    def __init__(
        self, attention: nn.Module, names: AttentionNames, block: int, branch: str
    ) -> None:
        self.attention = attention
        self.names = names
        consumer, width = getattr(attention, names.output), getattr(attention, names.head_width)
        super().__init__(
            f"{branch}.heads",
            HEAD,
            consumer.in_features // width,
            block,
            branch,
            consumer=consumer,
            width=width,
            projections=[getattr(attention, name) for name in names.inputs],
        )

    def made_by(self) -> list[Tensor]:
        own = [getattr(self.attention, name).detach() for name in self.names.per_head]
        return [*super().made_by(), *own]

    def cut(self, kept: Tensor, values: Tensor) -> None:
        super().cut(kept, values)
        for name in self.names.per_head:
            whole = getattr(self.attention, name).detach()
            setattr(self.attention, name, nn.Parameter(whole[kept].clone()))
        if self.names.heads is not None:
            setattr(self.attention, self.names.heads, len(kept))
