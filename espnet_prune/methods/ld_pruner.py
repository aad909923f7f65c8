"""LD-Pruner: an operator counts by how far the latent moves without it; no labels.

"LD-Pruner: Efficient Pruning of Latent Diffusion Models using Task-Agnostic Insights", Castells et
al. 2024 (arXiv 2404.11936). The score of an operator is the sum of how far the mean and the spread
of the latent shift when it is modified; the operators that count least go. Ours: the latent is what
the encoder gives; its mean and standard deviation are those of each feature over an utterance's
frames, and a shift is the norm of the differences, averaged over utterances; operators are the
branches, which are taken out one at a time; they go by score for each parameter (or MAC). The one
that would be too much is thinned by magnitude.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from espnet_prune.budget import BRANCH, resolve
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.methods.base import DataMethod, Pass
from espnet_prune.methods.dropping import closed, drop_in_order
from espnet_prune.surgery import GatedModel
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.inputs import first_tensor

Statistics = tuple[Tensor, Tensor]  # mean and standard deviation of each feature, (D,) each


class LdPruner(DataMethod):
    """Whole branches by the shift of the encoder's output; the last one in part.

    Raises:
        ConfigError: the decoder is to be pruned, too.
    """

    def check(self) -> None:
        """ConfigError for a decoder, which the latent doesn't depend on."""
        if self.decoder is not None:
            raise ConfigError(
                "decoder: LD-Pruner looks at what the encoder gives, which no part of a decoder "
                "changes; leave decoder out, or choose another method"
            )

    @property
    def site_kinds(self) -> Sequence[str]:
        """Those of the config, and the branches."""
        return tuple(dict.fromkeys((*self.config.sites, BRANCH)))

    def masks(self, gated: GatedModel, passes: Sequence[Pass] = ()) -> Mapping[str, Tensor]:
        """The resolved masks of all sites.

        Raises:
            ModelError: a model without branches that can go.
        """
        self.check_passes(passes)
        branches = [site.name for site in gated.site_map.of_kinds((BRANCH,))]
        if not branches:
            raise ModelError("ld_pruner: this model has no branches that can be taken out")
        dense = latents(gated, {}, passes)
        scores = {}
        for name in branches:
            without = resolve(gated.site_map, closed(gated, [name]))
            saved = gated.budget.prunable - gated.budget.hard(without)
            scores[name] = shift(dense, latents(gated, without, passes)) / max(saved, 1)
        order = sorted(branches, key=scores.__getitem__)
        return drop_in_order(gated, order, self.target, self.config.budget.tolerance)


def shift(before: Sequence[Statistics], after: Sequence[Statistics]) -> float:
    """How far means and standard deviations move, averaged over utterances."""
    moved = [
        (a[0] - b[0]).norm() + (a[1] - b[1]).norm() for a, b in zip(after, before, strict=True)
    ]
    return float(torch.stack(moved).mean())


@torch.no_grad()
def latents(
    gated: GatedModel, masks: Mapping[str, Tensor], passes: Sequence[Pass]
) -> list[Statistics]:
    """Mean and standard deviation of the encoder's output in each pass under ``masks``."""
    device = next(gated.model.parameters()).device
    seen: list[Tensor] = []

    def keep(encoder: nn.Module, inputs: tuple, output: object) -> None:
        seen.append(first_tensor(output).detach())

    handle = gated.site_map.encoder.register_forward_hook(keep)
    found = []
    try:
        with holding(gated, {name: mask.to(device) for name, mask in masks.items()}):
            for run in passes:
                seen.clear()
                run()
                frames = seen[0].reshape(-1, seen[0].shape[-1])
                found.append((frames.mean(dim=0), frames.std(dim=0, correction=0)))
    finally:
        handle.remove()
    return found
