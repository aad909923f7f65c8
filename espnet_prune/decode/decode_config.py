"""What decode.yaml may say; nothing here imports torch or ESPnet."""

from dataclasses import dataclass

from espnet_prune.config import check_choice, check_range
from espnet_prune.data.segments import LEAST_SECONDS, LONGEST_SECONDS
from espnet_prune.errors import ConfigError
from espnet_prune.export.int8 import INT8_MODES

MODES = ("greedy", "ctc_prefix", "joint")
ALL_MODES = (*MODES, *INT8_MODES)
DEFAULT_MODES = ("greedy", "joint")
MOST_TOKENS, MOST_RATIO, MOST_PENALTY = 10000, 10, 100  # far beyond what any text needs (ours)


@dataclass(frozen=True)
class DecodeConfig:
    """How a set is decoded.

    Attributes:
        modes: ``greedy`` (CTC argmax), ``ctc_prefix`` (beam search, CTC alone) and/or ``joint``
            (beam search, CTC and attention); with ``_int8`` behind it, by dynamic int8 in torch;
            ``greedy_onnx_int8`` by that in ONNX Runtime. Of a transducer, ``greedy`` and ``joint``
            are ESPnet's search for those, with one and with ``beam_size`` hypotheses; it reads
            ``lm`` besides, and none of the other options.
        beam_size: width of either search; a model of fewer tokens is searched with as many as it
            has.
        ctc_weight: weight of CTC in the joint search; the decoder has the rest.
        penalty: added for each token.
        maxlenratio: longest hypothesis, of the encoder's frames; 0 for ESPnet's end detection;
            below 0, a number of tokens.
        minlenratio: shortest one, likewise; where a recording has no text so long, it is searched
            without.
        lm: folder of a language model that ESPnet trained, on the same tokens; the joint search
            alone reads it.
        lm_weight: weight of its scores there.
        segment_seconds: a longer recording is cut at its quietest points into pieces of at most
            this length, since attention over it would need memory by its square.
    """

    modes: tuple[str, ...] = DEFAULT_MODES
    beam_size: int = 10
    ctc_weight: float = 0.3
    penalty: float = 0.0
    maxlenratio: float = 0.0
    minlenratio: float = 0.0
    lm: str | None = None
    lm_weight: float = 0.3
    segment_seconds: float = LONGEST_SECONDS

    def __post_init__(self) -> None:
        for mode in self.modes:
            check_choice("modes", mode, ALL_MODES)
        if not self.modes or len(set(self.modes)) < len(self.modes):
            raise ConfigError(f"modes: {list(self.modes)}; expected some of {ALL_MODES}, each once")
        check_range("beam_size", self.beam_size, 1, 1000)
        check_range("ctc_weight", self.ctc_weight, 0, 1)
        check_range("penalty", self.penalty, -MOST_PENALTY, MOST_PENALTY)
        for name in ("maxlenratio", "minlenratio"):
            check_range(name, getattr(self, name), -MOST_TOKENS, MOST_RATIO)
        longest, shortest = self.maxlenratio, self.minlenratio
        if longest * shortest > 0 and abs(shortest) > abs(longest):
            raise ConfigError(
                f"minlenratio: {shortest} is more than maxlenratio: {longest}, so that no text "
                "would be left; lower it"
            )
        check_range("lm_weight", self.lm_weight, 0, 100)
        check_range("segment_seconds", self.segment_seconds, LEAST_SECONDS, 1e6)
