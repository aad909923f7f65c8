"""wav2vec 2.0 and its kin of transformers as an encoder of ESPnet: samples in, hidden states out.

``encoder: ssl`` with ``frontend: null`` and ``input_size: 1`` puts CTC, data, training and scoring
of ESPnet around the pretrained model.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.models import families
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.huggingface import build
from espnet_prune.models.huggingface.encoder import PretrainedEncoder
from espnet_prune.models.ssl.family import Ssl

with importing_espnet():
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError

EPSILON = 1e-7  # of the scaling of samples, as transformers' feature extractor has it


class SslEncoder(PretrainedEncoder):
    """A wav2vec 2.0, HuBERT, WavLM or Wav2Vec2-Conformer model, with its convolutional front.

    Args:
        input_size: 1, the width of samples.
        model: a name on the hub, a folder of ``save_pretrained``, or the mapping of transformers'
            configuration for a model with random weights.
        class_name: a class of transformers, without an output layer.
        offline: whether to look only at folders and at what was downloaded before.
        options: options of transformers' configuration, such as ``layerdrop``; they win.
        freeze_front: whether the convolutional front keeps its pretrained weights.
        pruned_arch: the plan of a cut model.

    Raises:
        ModelError: the model can't be found or built, or the plan is of another one.
    """

    def __init__(
        self,
        input_size: int,
        model: str | Mapping[str, Any],
        class_name: str = "Wav2Vec2Model",
        offline: bool = False,
        options: Mapping[str, Any] | None = None,
        freeze_front: bool = True,
        pruned_arch: Mapping[str, Any] | None = None,
    ) -> None:
        if input_size != 1:
            raise ModelError(
                f"encoder ssl: it reads samples, not features of width {input_size}; set "
                "frontend: null and input_size: 1"
            )
        readers = sample_readers()
        if class_name in build.known_classes() and class_name not in readers:
            raise ModelError(
                f"encoder ssl: class_name: {class_name} doesn't read samples; known are "
                f"{', '.join(readers)}"
            )
        super().__init__(class_name, model, offline, options)
        self.class_name = class_name
        self.freeze_front = freeze_front
        if freeze_front:  # what a plan cuts stays frozen
            self.model.feature_extractor._freeze_parameters()
        self.cut_to(pruned_arch)

    @property
    def encoders(self) -> nn.ModuleList:
        """The layers, by the name that ESPnet's encoders have for theirs."""
        return self.model.encoder.layers

    def saved_conf(self) -> dict:
        """``encoder_conf`` that rebuilds this encoder, uncut, without the hub."""
        about = {"class_name": self.class_name, "freeze_front": self.freeze_front}
        return {**super().saved_conf(), **about}

    def call_of(self, xs_pad: Tensor, ilens: Tensor) -> tuple[Tensor, Tensor, dict[str, Any]]:
        lengths = self.model._get_feat_extract_output_lengths(ilens).long()
        if int(lengths.min()) < 1:
            shortest = int(ilens.min())
            raise TooShortUttError(f"{shortest} samples give no frame", shortest, self.least())
        inside = torch.arange(xs_pad.shape[1], device=xs_pad.device) < ilens[:, None]
        samples = _standardised(xs_pad, inside)
        # models with one norm over all frames were pretrained without a mask
        masked = self.model.config.feat_extract_norm == "layer"
        frames = int(self.model._get_feat_extract_output_lengths(samples.shape[1]))
        options = {
            "attention_mask": inside.long() if masked else None,
            "mask_time_indices": self.hidden_frames(samples, frames),
        }
        return samples, lengths, options

    def least(self) -> int:
        """Least number of samples that give a frame."""
        samples = 1
        config = self.model.config
        for kernel, stride in zip(
            reversed(config.conv_kernel), reversed(config.conv_stride), strict=True
        ):
            samples = (samples - 1) * stride + kernel
        return samples


def sample_readers() -> list[str]:
    """Classes of transformers, without an output layer, that such an encoder may hold."""
    classes = (name for f in families() if isinstance(f, Ssl) for name in f.transformers_classes)
    return [name for name in classes if not name.endswith("ForCTC")]


def _standardised(samples: Tensor, inside: Tensor) -> Tensor:
    """Each recording with mean 0 and variance 1 over its own samples, padded by zeros."""
    number = inside.sum(dim=1, keepdim=True)
    mean = (samples * inside).sum(dim=1, keepdim=True) / number
    centred = (samples - mean) * inside
    variance = centred.pow(2).sum(dim=1, keepdim=True) / number
    return centred / (variance + EPSILON).sqrt()
