"""Models of transformers: from their hub or a folder, or from a configuration."""

import logging
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from espnet_prune.config import nearest
from espnet_prune.errors import EnvironmentProblem, ModelError
from espnet_prune.models import families
from espnet_prune.models.family import TransformersFamily

logger = logging.getLogger(__name__)

WHISPER_POSITIONS_PER_SECOND = 50
# What stands for hidden frames, in training alone. It is there only where the configuration hides
# any, and facebook/wav2vec2-base-960h, for one, was saved without it.
MASK_EMBEDDING = "masked_spec_embed"
OPTIONS_BESIDE = ("attn_implementation", "num_labels")  # read, but not written as such
SET_HERE = {"dtype"}  # models are in float32
UNBUILDABLE = (TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, ImportError)
# transformers: sizes that don't fit are a RuntimeError, an unknown activation is a KeyError
UNLOADABLE = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)


def load_pretrained(
    name: str, class_name: str, offline: bool = False, options: Mapping | None = None
) -> nn.Module:
    """A pretrained model in float32, ready to be gated.

    Args:
        name: a name on the hub, such as ``facebook/wav2vec2-base``, or a folder of
            ``save_pretrained``.
        class_name: one of ``known_classes``.
        offline: whether to look only at folders and at what was downloaded before.
        options: keys of the configuration that win, such as ``layerdrop``.

    Raises:
        ModelError: an unknown class or option; a name that isn't found, or weights that don't fit.
    """
    transformers = import_transformers()
    check_options(class_name, options or {})
    try:
        model, found = getattr(transformers, class_name).from_pretrained(
            name,
            dtype=torch.float32,
            local_files_only=offline,
            output_loading_info=True,
            **(options or {}),
        )
    except UNLOADABLE as error:
        raise ModelError(
            f"{name}: can't be loaded as {class_name} ({_reason(error)}); give a folder "
            "as save_pretrained wrote it, whole and unchanged, or a name on the hub on a machine "
            "with internet"
        ) from error
    _check_missing(name, found["missing_keys"])
    return model.eval()


def _reason(error: Exception) -> str:
    """The first line of what an error says; in our words where it says too little."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, KeyError):
        return f"config.json names {text}, which isn't known"
    if "ignore_mismatched_sizes" in text:
        return "its weights have other sizes than its config.json"
    return text


def _check_missing(name: str, missing: Iterable[str]) -> None:
    """ModelError for missing weights, but of parts that a training may start anew."""
    missing = [key for key in sorted(missing) if not key.startswith("lm_head.")]
    unknown = [key for key in missing if not key.endswith(MASK_EMBEDDING)]
    if unknown:  # a new output layer is what finetuning starts from; any other part is a mistake
        raise ModelError(f"{name}: weights are missing: {', '.join(unknown[:3])}")
    if missing:
        logger.info("%s: has no %s; it starts at random", name, ", ".join(missing))


def check_options(class_name: str, options: Mapping) -> None:
    """ModelError for an option that the configuration of a class doesn't have.

    transformers takes any key into a configuration, where nothing would read it.

    Args:
        class_name: one of ``known_classes``.
        options: keys that somebody wrote, not a configuration that transformers saved: that one
            may have keys of another version.
    """
    name = check_class(class_name, "class_name")
    config = getattr(import_transformers(), name)()
    known = {*config.to_dict(), *config.attribute_map, *OPTIONS_BESIDE} - SET_HERE
    for key in options:
        if key not in known:
            raise ModelError(
                f"options: '{key}' can't be set of {class_name}{nearest(key, known)}; give keys "
                f"of transformers' {name}"
            )


def from_config(
    class_name: str,
    config: Mapping,
    attention: str | None = None,
    options: Mapping | None = None,
) -> nn.Module:
    """A model with random weights from its configuration.

    Args:
        class_name: one of ``known_classes``.
        config: what transformers' configuration is made from.
        attention: how attention is computed, such as ``eager``; by default transformers' choice.
        options: keys that win over those of ``config``, and are checked more strictly.

    Raises:
        ModelError: an unknown class or option, or a configuration that transformers doesn't take.
    """
    check_options(class_name, options or {})
    made = config_of(class_name, {**config, **(options or {})})
    try:
        if attention is not None:
            made._attn_implementation = attention
        return getattr(import_transformers(), class_name)(made).eval()
    except KeyError as error:
        raise ModelError(
            f"{class_name}: no model of this configuration: {error} isn't known; where it is an "
            "activation, choose one of transformers' own, such as gelu"
        ) from error
    except _unbuildable() as error:
        raise ModelError(f"{class_name}: no model of this configuration: {error}") from error


def config_of(class_name: str, config: Mapping) -> Any:
    """transformers' own configuration of a class, with its defaults.

    Args:
        class_name: one of ``known_classes``.
        config: its values.

    Raises:
        ModelError: an unknown class, or values that transformers doesn't take.
    """
    name = check_class(class_name, "class_name")
    try:
        return getattr(import_transformers(), name).from_dict(dict(config))
    except _unbuildable() as error:
        raise ModelError(f"{class_name}: no model of this configuration: {error}") from error


def _unbuildable() -> tuple[type[Exception], ...]:
    """What a configuration raises that holds what transformers doesn't take."""
    from huggingface_hub.errors import StrictDataclassError  # which comes with transformers

    return (*UNBUILDABLE, StrictDataclassError)


def whisper_features(config) -> object:
    """Whisper's own feature extractor, of a WhisperConfig: samples to log-mel windows."""
    seconds = config.max_source_positions // WHISPER_POSITIONS_PER_SECOND
    return import_transformers().WhisperFeatureExtractor(config.num_mel_bins, chunk_length=seconds)


def whisper_shell(config, generation: Mapping) -> nn.Module:
    """A WhisperForConditionalGeneration to put parts into, of a WhisperConfig."""
    shell = import_transformers().WhisperForConditionalGeneration(config).eval()
    if generation:
        shell.generation_config = generation_config(generation)
    return shell


def generation_config(values: Mapping) -> object:
    """transformers' GenerationConfig of these values.

    Raises:
        ModelError: it doesn't take them.
    """
    transformers = import_transformers()
    try:
        return transformers.GenerationConfig.from_dict(dict(values))
    except _unbuildable() as error:
        raise ModelError(f"generation_config: not one of transformers: {error}") from error


def known_classes() -> dict[str, str]:
    """Classes of models that a folder may name, and the classes of their configurations."""
    classes: dict[str, str] = {}
    for family in families():
        if isinstance(family, TransformersFamily):
            classes |= family.transformers_classes
    return classes


def import_transformers() -> ModuleType:
    """The library, imported here and only when it is needed.

    Raises:
        EnvironmentProblem: it isn't installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise EnvironmentProblem(
            f"{error.name} is missing; install the extra: pip install 'espnet_prune[hf]'"
        ) from error
    return transformers


def check_class(name: object, where: str) -> str:
    """The class of a model's configuration.

    Raises:
        ModelError: no such class is known.
    """
    known = known_classes()
    if not isinstance(name, str) or name not in known:
        near = nearest(str(name), known)
        raise ModelError(f"{where}: '{name}' is not known{near}; expected one of {list(known)}")
    return known[name]
