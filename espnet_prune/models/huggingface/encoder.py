"""A pretrained model of transformers as an encoder of ESPnet: what its two kinds share.

``encoder: ssl`` reads samples, the others features of ESPnet's ``frontend``. A saved model holds
transformers' own configuration, so that it is rebuilt without the hub.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.huggingface import build
from espnet_prune.surgery.cut import cut_to_plan
from espnet_prune.surgery.families import family_of
from espnet_prune.surgery.plan import PLAN_ATTRIBUTE, Plan, plan_of

with importing_espnet():
    from espnet2.asr.encoder.abs_encoder import AbsEncoder


class PretrainedEncoder(AbsEncoder):
    """Holds ``model``, one of transformers' classes without an output layer.

    Args:
        class_name: the class.
        model: a name on the hub, a folder of ``save_pretrained``, or the mapping of transformers'
            configuration for a model with random weights.
        offline: whether to look only at folders and at what was downloaded before.
        options: options of transformers' configuration, such as ``layerdrop``; they win.

    Raises:
        ModelError: the model can't be found or built.
    """

    def __init__(
        self,
        class_name: str,
        model: str | Mapping[str, Any],
        offline: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(model, Mapping):
            self.model = build.from_config(class_name, model, options=options)
        else:
            self.model = build.load_pretrained(model, class_name, offline, options)

    def cut_to(self, pruned_arch: Mapping[str, Any] | None) -> None:
        """Cuts the dense model to a plan, if there is one.

        Raises:
            ModelError: it isn't a plan, or is that of another model.
        """
        if pruned_arch is not None:
            plan = Plan.from_json(pruned_arch, "encoder_conf.pruned_arch")
            cut = cut_to_plan(self.model, family_of(self.model).whole_plan(self.model, plan))
            setattr(self, PLAN_ATTRIBUTE, plan_of(cut))

    def output_size(self) -> int:
        """Width of the hidden states."""
        return self.model.config.hidden_size

    @property
    @abstractmethod
    def encoders(self) -> nn.ModuleList:
        """The blocks, by the name that ESPnet's encoders have for theirs."""

    def saved_conf(self) -> dict:
        """``encoder_conf`` that rebuilds this encoder, uncut, without the hub."""
        return {"model": family_of(self.model).dense_config(self.model)}

    @abstractmethod
    def call_of(self, xs_pad: Tensor, ilens: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """What the model is called with.

        Args:
            xs_pad: (B, samples), full scale 1, or features (B, T, F).
            ilens: (B,), their lengths.

        Returns:
            Its input; lengths (B,) of its output in frames; its other arguments.

        Raises:
            TooShortUttError: a recording gives no frame.
        """

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: Tensor | None = None,
        return_all_hs: bool = False,
    ) -> tuple[Tensor | tuple[Tensor, list[Tensor]], Tensor, None]:
        """Hidden states.

        Args:
            xs_pad: (B, samples), full scale 1, or features (B, T, F).
            ilens: (B,), their lengths.
            prev_states: unused.
            return_all_hs: whether to give every block's output as well.

        Returns:
            (B, T', D), or that and a list of (B, T', D) by block; lengths (B,) in frames; None.

        Raises:
            TooShortUttError: a recording gives no frame.
        """
        values, lengths, options = self.call_of(xs_pad, ilens)
        output = self.model(values, output_hidden_states=return_all_hs, **options)
        encoded = output.last_hidden_state[:, : int(lengths.max())]
        if not return_all_hs:
            return encoded, lengths, None
        hidden = [state[:, : encoded.shape[1]] for state in output.hidden_states[1:]]
        return (encoded, hidden), lengths, None

    def hidden_frames(self, values: Tensor, frames: int) -> Tensor | None:
        """None, by which transformers draws the frames to hide; none of what is too short for one.

        Its own draw refuses a batch of fewer frames than one mask has.

        Args:
            values: the model's input, of B recordings.
            frames: frames of the longest.
        """
        config = self.model.config
        if not self.training or not config.mask_time_prob or frames >= config.mask_time_length:
            return None
        return torch.zeros(len(values), frames, dtype=torch.bool, device=values.device)
