"""Models of transformers that read features, as encoders of ESPnet behind their front-ends."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.huggingface.encoder import PretrainedEncoder
from espnet_prune.surgery.families import family_of

with importing_espnet():
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError


class FeatureEncoder(PretrainedEncoder):
    """Features in, hidden states out; what a batch pads is masked.

    Args:
        input_size: width of the features.
        model: a name on the hub, a folder of ``save_pretrained``, or the mapping of transformers'
            configuration for a model with random weights.
        offline: whether to look only at folders and at what was downloaded before.
        options: options of transformers' configuration, such as ``layerdrop``; they win.
        pruned_arch: the plan of a cut model.

    Attributes:
        class_name: the class of transformers, without an output layer.

    Raises:
        ModelError: the model can't be found or built, reads features of another width, or the plan
            is of another one.
    """

    class_name: ClassVar[str]

    def __init__(
        self,
        input_size: int,
        model: str | Mapping[str, Any],
        offline: bool = False,
        options: Mapping[str, Any] | None = None,
        pruned_arch: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(self.class_name, model, offline, options)
        bins = family_of(self.model).feature_bins(self.model.config)
        if input_size != bins:
            raise ModelError(
                f"frontend: it gives features of width {input_size}, but {self.class_name} reads "
                f"those of width {bins}; set frontend_conf to what the model was trained with"
            )
        self.cut_to(pruned_arch)

    @property
    def encoders(self) -> torch.nn.ModuleList:
        """The blocks, by the name that ESPnet's encoders have for theirs."""
        return family_of(self.model).layers_of(self.model)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames of the output for so many frames of features, (B,) -> (B,); as many by default."""
        return lengths

    def call_of(self, xs_pad: Tensor, ilens: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        if int(ilens.min()) < 1:
            raise TooShortUttError("a recording has no frame", int(ilens.min()), 1)
        inside = torch.arange(xs_pad.shape[1], device=xs_pad.device) < ilens[:, None]
        options = {"attention_mask": inside, **self.call_options(xs_pad)}
        return xs_pad, self.output_lengths(ilens).long(), options

    def call_options(self, xs_pad: Tensor) -> dict[str, Any]:
        """What the model is called with besides features and mask; by default nothing."""
        return {}
