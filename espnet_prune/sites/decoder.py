"""What a decoder's MACs are counted for, and how the names of its sites begin."""

from dataclasses import dataclass

from espnet_prune.config import check_range

DECODER = "decoder."  # how the names of its sites begin


@dataclass(frozen=True)
class DecoderConfig:
    """That the decoder, attention or transducer, is pruned too, and what its MACs are counted for.

    Parameters are counted as they are; of MACs, both values below are this project's choice.

    Attributes:
        tokens_per_second: tokens that are decoded for each second of audio. Read English has about
            2.7 words a second, some of several tokens.
        beam_size: hypotheses side by side, each of which costs every token; as in decode.yaml.
    """

    tokens_per_second: float = 4.0
    beam_size: int = 10

    def __post_init__(self) -> None:
        check_range("decoder: tokens_per_second", self.tokens_per_second, 0.01, 1000)
        check_range("decoder: beam_size", self.beam_size, 1, 1000)
