"""A pruned model of transformers by itself: torch and transformers are all that it needs.

``espnet-prune export_transformers`` puts this file beside the weights, with the model's class at
its end. ``config.json`` says under ``pruned`` in what the model is other than what transformers
builds of the same configuration: what stands where a part was taken out, attributes of modules, and
shapes of tensors.
"""

import copy

import torch
import transformers
from torch import Tensor, nn


class GoneBranch(nn.Module):
    """Stands where a part of a block was: adds nothing."""

    def forward(self, hidden_states: Tensor, *unused, **ignored) -> Tensor:
        """(B, T, D) -> zeros (B, T, D)."""
        return torch.zeros_like(hidden_states)


class GoneAttention(nn.Module):
    """Stands where attention was: adds nothing."""

    def forward(self, hidden_states: Tensor, *unused, **ignored) -> tuple[Tensor, None]:
        """(B, T, D) -> zeros (B, T, D), and no attention weights."""
        return torch.zeros_like(hidden_states), None


class GoneCachedAttention(nn.Module):
    """The same where a cache counts the tokens by the keys of its first layer."""

    layer_idx: int | None = None

    def forward(
        self, hidden_states: Tensor, key_value_states=None, past_key_values=None, **unused
    ) -> tuple[Tensor, None]:
        """(B, T, D) -> zeros (B, T, D), and no attention weights."""
        if past_key_values is not None and key_value_states is None:
            cache = getattr(past_key_values, "self_attention_cache", past_key_values)
            marks = hidden_states.new_zeros(len(hidden_states), 1, hidden_states.shape[1], 1)
            cache.update(marks, marks, self.layer_idx)
        return torch.zeros_like(hidden_states), None


KINDS = (GoneBranch, GoneAttention, GoneCachedAttention, nn.Identity)
STAND_INS = {kind.__name__: kind for kind in KINDS}


class Pruned:
    """Mixin before a class of transformers: its modules are made as ``config.pruned`` says."""

    def __init__(self, config: transformers.PreTrainedConfig, *inputs, **keywords) -> None:
        super().__init__(config, *inputs, **keywords)
        for name, kind in config.pruned["stand_ins"].items():
            self.set_submodule(name, STAND_INS[kind]())
        for name, attributes in config.pruned["attributes"].items():
            for attribute, value in attributes.items():
                self._set(*self._owner(f"{name}.{attribute}"), value)
        for name, shape in config.pruned["shapes"].items():
            owner, attribute = self._owner(name)
            before = getattr(owner, attribute)
            made = torch.zeros(shape, dtype=before.dtype, device=before.device)
            is_parameter = isinstance(before, nn.Parameter)
            setattr(owner, attribute, nn.Parameter(made) if is_parameter else made)

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """The module of an attribute's full name, and the attribute."""
        module, _, attribute = name.rpartition(".")
        return self.get_submodule(module), attribute

    @staticmethod
    def _set(module: nn.Module, attribute: str, value) -> None:
        """Sets an attribute; lists of JSON are the tuples that they were."""
        if attribute == "config":  # of this module alone
            made = copy.copy(module.config)
            for key, own in value.items():
                setattr(made, key, own)
            value = made
        setattr(module, attribute, tuple(value) if isinstance(value, list) else value)
