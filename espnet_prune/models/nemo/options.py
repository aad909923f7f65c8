"""What of a NeMo configuration is read, and what of it has to be as this project knows it.

Every key is accounted for: it is read, it must have one of the values that are known, or it steers
nothing but training. A key that is none of these is an error by its name, since the model might
compute something else by it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from espnet_prune.config import check_mapping, nearest
from espnet_prune.errors import ModelError
from espnet_prune.models.nemo.features import LOG_GUARD

CTC_MODEL = "EncDecCTCModelBPE"
NUMBERS = (int, float)


@dataclass(frozen=True)
class Section:
    """One mapping of ``model_config.yaml``.

    Attributes:
        name: its key.
        read: keys that are read, with the value that NeMo has where they are missing.
        known: keys that must have one of these values; a missing one has the first.
        training: keys that steer training alone.
    """

    name: str
    read: Mapping[str, Any]
    known: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    training: Sequence[str] = ()

    def values(self, config: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The values of ``read``.

        Args:
            config: the whole configuration.
            where: the archive, for errors.

        Raises:
            ModelError: a key or a value that isn't known, or no number where one is needed.
        """
        place = f"{where}: model_config.yaml: {self.name}"
        own = check_mapping(place, config.get(self.name))
        for key, value in own.items():
            if key in self.known and value not in self.known[key]:
                raise ModelError(
                    f"{place}: {key}: {value!r} can't be imported; expected "
                    f"{' or '.join(map(repr, self.known[key]))}"
                )
            if key not in {*self.read, *self.known, *self.training, "_target_"}:
                raise ModelError(
                    f"{place}: {key}: {value!r}: this key isn't known"
                    f"{nearest(key, [*self.read, *self.known])}, and the model may depend on it"
                )
        values = {key: own.get(key, default) for key, default in self.read.items()}
        for key, value in values.items():
            if type(self.read[key]) in NUMBERS and type(value) not in NUMBERS:
                raise ModelError(f"{place}: {key}: a number was expected, not {value!r}")
        return values


PREPROCESSOR = Section(
    "preprocessor",
    read={
        "sample_rate": 16000,
        "window_size": 0.02,
        "window_stride": 0.01,
        "n_window_size": None,
        "n_window_stride": None,
        "window": "hann",
        "features": 64,
        "n_fft": None,
        "preemph": 0.97,
    },
    known={
        "normalize": ("per_feature",),
        "log": (True,),
        "log_zero_guard_type": ("add",),
        "log_zero_guard_value": (LOG_GUARD,),
        "mag_power": (2.0,),
        "mel_norm": ("slaney",),
        "lowfreq": (0, None),
        "highfreq": (None,),
        "frame_splicing": (1,),
        "exact_pad": (False,),
        "stft_exact_pad": (False,),
        "stft_conv": (False,),
        "pad_value": (0, 0.0),
    },
    training=("dither", "pad_to", "nb_augmentation_prob", "nb_max_freq", "rng", "use_grads"),
)
ENCODER = Section(
    "encoder",
    read={
        "feat_in": 80,
        "n_layers": None,
        "d_model": None,
        "subsampling_conv_channels": -1,
        "ff_expansion_factor": 4,
        "n_heads": 4,
        "xscaling": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 31,
        "dropout": 0.1,
        "dropout_emb": 0.1,
        "dropout_att": 0.0,
    },
    known={
        "subsampling": ("striding",),
        "subsampling_factor": (4,),
        "self_attention_model": ("rel_pos",),
        "untie_biases": (True,),
        "conv_norm_type": ("batch_norm",),
        "att_context_size": ([-1, -1], None),
        "att_context_style": ("regular",),
        "conv_context_size": (None,),
        "causal_downsampling": (False,),
        "use_bias": (True,),
        "feat_out": (-1, None),
        "reduction": (None,),
        "reduction_factor": (1,),
        "global_tokens": (0,),
    },
    training=(
        "reduction_position",
        "att_context_probs",
        "dropout_pre_encoder",
        "stochastic_depth_drop_prob",
        "stochastic_depth_mode",
        "stochastic_depth_start_layer",
        "subsampling_conv_chunking_factor",
        "global_tokens_spacing",
        "global_attn_separate",
        "use_pytorch_sdpa",
        "use_pytorch_sdpa_backends",
        "sync_max_audio_length",
    ),
)
DECODER = Section(
    "decoder",
    read={"vocabulary": None},
    known={"add_blank": (True,)},
    training=("feat_in", "num_classes", "init_mode"),  # shapes, which the weights have
)
TOKENIZER = Section(
    "tokenizer",
    read={"model_path": None},
    known={"type": ("bpe",)},
    training=("dir", "vocab_path", "spe_tokenizer_vocab", "update_tokenizer"),
)
WHOLE = {
    *(section.name for section in (PREPROCESSOR, ENCODER, DECODER, TOKENIZER)),
    *("target", "nemo_version", "sample_rate", "labels"),
    *("spec_augment", "optim", "train_ds", "validation_ds", "test_ds", "decoding", "interctc"),
    *("log_prediction", "ctc_reduction", "skip_nan_grad", "variational_noise", "model_defaults"),
    *("use_cer", "repeat", "timesteps", "exp_manager", "trainer", "name", "init_from_nemo_model"),
}


def check_kind(config: Mapping[str, Any], where: str) -> list[str]:
    """Makes sure that a configuration is a CTC model's with sentencepiece tokens.

    Returns:
        Keys at the top that aren't known; none of the parts that are read depends on them.

    Raises:
        ModelError: another kind of model.
    """
    target = str(config.get("target", CTC_MODEL)).rpartition(".")[2]
    if target != CTC_MODEL:
        raise ModelError(
            f"{where}: model_config.yaml: target: {target} can't be imported; expected "
            f"{CTC_MODEL}, a Conformer with CTC and sentencepiece tokens"
        )
    for key in ("joint", "aux_ctc", "prompt_format"):
        if key in config:
            raise ModelError(
                f"{where}: model_config.yaml: {key}: transducers, hybrids and prompted models "
                "can't be imported; expected a model with CTC alone"
            )
    return sorted(set(config) - WHOLE)


def front_end_conf(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``frontend_conf`` of ``NemoFrontend``.

    Raises:
        ModelError: a key or a value that isn't known.
    """
    own = PREPROCESSOR.values(config, where)
    rate = own["sample_rate"]
    width = own["n_window_size"] or round(own["window_size"] * rate)
    return {
        "fs": rate,
        "n_fft": own["n_fft"] or 2 ** math.ceil(math.log2(width)),
        "win_length": width,
        "hop_length": own["n_window_stride"] or round(own["window_stride"] * rate),
        "n_mels": own["features"],
        "window": own["window"],
        "preemphasis": own["preemph"] or 0.0,
    }


def encoder_conf(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``encoder_conf`` of ``NemoConformerEncoder``; ``input_size`` isn't among it.

    Raises:
        ModelError: a key or a value that isn't known, or a size that is missing.
    """
    own = ENCODER.values(config, where)
    for key in ("n_layers", "d_model"):
        if not isinstance(own[key], int):
            raise ModelError(
                f"{where}: model_config.yaml: encoder: {key}: a number was expected, not "
                f"{own[key]!r}"
            )
    channels = own["subsampling_conv_channels"]
    return {
        "output_size": own["d_model"],
        "attention_heads": own["n_heads"],
        "linear_units": own["d_model"] * own["ff_expansion_factor"],
        "num_blocks": own["n_layers"],
        "cnn_module_kernel": own["conv_kernel_size"],
        "subsampling_channels": own["d_model"] if channels == -1 else channels,
        "max_pos_emb_len": own["pos_emb_max_len"],
        "dropout_rate": float(own["dropout"]),
        "positional_dropout_rate": float(own["dropout_emb"]),
        "attention_dropout_rate": float(own["dropout_att"]),
    }
