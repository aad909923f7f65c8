"""Refuses what one mask can't serve: a weight that two places of a model share."""

from collections.abc import Mapping

from torch import Tensor, nn

from espnet_prune.errors import ModelError


def refuse_tied(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """ModelError where one of ``weights`` (by its site's name) is two parameters of the model.

    Whisper ties its token embeddings to its output layer, for example; neither is ever gated.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for site, weight in weights.items():
        shared = names[id(weight)]
        if len(shared) > 1:
            raise ModelError(
                f"{site}: its matrix is tied to another ({', '.join(shared)}), and one mask can't "
                "serve both; untie them (layer.weight = nn.Parameter(layer.weight.clone()))"
            )
