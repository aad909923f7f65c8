"""Refuses weights that masks can't serve: shared by two places of a model, or in float16."""

from collections.abc import Iterable

import torch
from torch import nn

from espnet_prune.errors import ModelError
from espnet_prune.sites.base import Site


def refuse_float16(model: nn.Module) -> None:
    """ModelError where a parameter of ``model`` is float16."""
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.float16:
            raise ModelError(
                f"{name} is float16, in which masks can't be learned; prune the model in float32 "
                "(model.float()) and convert it afterwards"
            )


def refuse_tied(model: nn.Module, sites: Iterable[Site]) -> None:
    """ModelError where a matrix that one of ``sites`` cuts is two parameters of the model.

    Whisper ties its token embeddings to its output layer, for example; neither is ever gated.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for site in sites:
        for layer in site.layers():
            shared = names[id(layer.weight)]
            if len(shared) > 1:
                raise ModelError(
                    f"{site.name}: its matrix is tied to another ({', '.join(shared)}), and one "
                    "mask can't serve both; untie them "
                    "(layer.weight = nn.Parameter(layer.weight.clone()))"
                )
