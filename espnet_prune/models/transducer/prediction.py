"""ESPnet's prediction network with layers of different widths, or of none, as a cut leaves them."""

from collections.abc import Mapping
from typing import Any

import torch
from espnet2.asr.decoder.transducer_decoder import TransducerDecoder
from torch import Tensor

from espnet_prune.models.espnet.encoder_family import PLAN
from espnet_prune.models.transducer.sites import JOINT, prediction_sites
from espnet_prune.sites import SiteMap
from espnet_prune.surgery.cut import cut_to
from espnet_prune.surgery.plan import PLAN_ATTRIBUTE, Plan

State = tuple[Tensor, Tensor | None]


class PrunableTransducerDecoder(TransducerDecoder):
    """What ``decoder: transducer`` builds here; its states are as wide as the widest layer.

    Args:
        vocab_size: number of tokens.
        pruned_arch: the plan that it is cut to, as JSON, once it is built; the joint network's
            part of it is left to that network's ``joint_space_size``.
        conf: ESPnet's options.

    Raises:
        ModelError: the plan is of a model with other layers or widths.
    """

    def __init__(
        self, vocab_size: int, *, pruned_arch: Mapping[str, Any] | None = None, **conf: Any
    ) -> None:
        super().__init__(vocab_size, **conf)
        if pruned_arch is not None:
            plan = Plan.from_json(pruned_arch, f"decoder_conf.{PLAN}")
            sites = {site.name: site for site in prediction_sites(self, None)}
            cut_to(plan.without(JOINT), SiteMap(sites, [], self, 0.0))
            self.dunits = self.decoder[-1].hidden_size  # which ESPnet builds the joint network by
            setattr(self, PLAN_ATTRIBUTE, plan)

    def init_state(self, batch_size: int) -> State:
        """Zeros (layers, B, width of the widest layer)."""
        widest = max(layer.hidden_size for layer in self.decoder)
        zeros = torch.zeros(len(self.decoder), batch_size, widest, device=self.device)
        return zeros, torch.zeros_like(zeros) if self.dtype == "lstm" else None

    def rnn_forward(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        """ESPnet's, each layer with its part of the states; not in mixed precision.

        On many processors oneDNN has no LSTM in bfloat16.

        Args:
            sequence: embeddings (B, L, D).
            state: (layers, B, widest), and the cells of LSTMs.
        """
        with torch.autocast(sequence.device.type, enabled=False):
            return self._layers(sequence.to(self.embed.weight.dtype), state)

    def _layers(self, sequence: Tensor, state: State) -> tuple[Tensor, State]:
        h_prev, c_prev = state
        h_next, c_next = self.init_state(len(sequence))
        for index, layer in enumerate(self.decoder):
            own = (slice(index, index + 1), slice(None), slice(layer.hidden_size))
            hidden = h_prev[own].contiguous()
            if self.dtype == "lstm":
                found = layer(sequence, (hidden, c_prev[own].contiguous()))
                sequence, (h_next[own], c_next[own]) = found
            else:
                sequence, h_next[own] = layer(sequence, hidden)
            sequence = self.dropout_dec[index](sequence)
        return sequence, (h_next, c_next)
