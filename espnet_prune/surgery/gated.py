"""A model with gates: masks made at each forward, sizes known at each update."""

from collections.abc import Mapping

import numpy
import torch
from torch import Tensor, nn

from espnet_prune.budget import Budget, Controller, close_empty_branches, masks_at_sparsity, resolve
from espnet_prune.errors import ModelError
from espnet_prune.gates import Gate
from espnet_prune.sites import SiteMap

UNFELT_LIMIT = 10  # in a row; one alone may have left out every block by chance (LayerDrop)


class GatedModel(nn.Module):
    """A model whose sites are masked by gates whenever its encoder runs.

    The wrapped model's parameters keep their names and values. Noise comes from (seed, rank,
    update) alone, so a resumed training draws what an unbroken one does, and processes differ.

    Args:
        model: the model, taken as it is (not copied).
        site_map: its sites.
        gates: a gate by name of site.
        budget: counts it.
        controller: drives its size, if the method learns masks.
        seed: seed of the gates' noise.
    """

    def __init__(
        self,
        model: nn.Module,
        site_map: SiteMap,
        gates: Mapping[str, Gate],
        budget: Budget,
        controller: Controller | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.gates = nn.ModuleDict({_key(name): gate for name, gate in gates.items()})
        self.controller = controller
        if controller is not None:
            controller.prunable = budget.prunable
        self.site_map = site_map
        self.budget = budget
        self.seed = seed
        self.rank = 0
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.register_buffer("start_sparsity", torch.zeros((), dtype=torch.float64))
        for site in site_map.sites.values():
            site.attach()
        self._passes, self._felt = 0, 0.0  # masked passes and their gradients since the last update
        self._unfelt = 0  # updates in a row whose loss gave the masks no gradient
        self._before: Tensor | None = None  # the gates' parameters before this update
        self._masked_by: int | None = None  # id of the outermost module that runs masked
        self._handles = []
        for module in (site_map.encoder, *site_map.entries):
            self._handles += [
                module.register_forward_pre_hook(self._apply_masks),
                module.register_forward_hook(self._clear_masks, always_call=True),
            ]
        with torch.no_grad():
            self.start_sparsity.copy_(self.expected_sparsity())
        self.open_attention: list[int | None] | None = None

    def forward(self, *inputs, **keywords):
        """The wrapped model's forward, masked."""
        return self.model(*inputs, **keywords)

    def gate(self, site: str) -> Gate:
        """The gate of a site, by the site's name."""
        return self.gates[_key(site)]

    def gate_names(self) -> list[str]:
        """Names of the sites that have a gate."""
        return [_name(key) for key in self.gates]

    def masks(self) -> dict[str, Tensor]:
        """This forward's masks, (units,) each: sampled in training, fixed at evaluation."""
        if self.training:
            noise = self._noise()
            raw = {
                _name(key): gate(chunk)
                for (key, gate), chunk in zip(self.gates.items(), noise, strict=True)
            }
            return close_empty_branches(self.site_map, raw)
        return self.hard_masks()

    def hard_masks(self) -> dict[str, Tensor]:
        """The fixed, consistent masks of all sites."""
        return resolve(self.site_map, self._deterministic(0.0))

    def hard_masks_at(self, target: float) -> tuple[dict[str, Tensor], float]:
        """Fixed masks whose sparsity is nearest to ``target``, and the shift that it took.

        Rounding per site can leave FLOP's masks off the learned size. One shift, added to every
        log_alpha before zeros are counted, is found by bisection; this project's own rule.
        """
        limit = max(gate.shift_limit for gate in self.gates.values())
        return masks_at_sparsity(self._deterministic, self.budget, target, -limit, limit)

    def expected_sparsity(self) -> Tensor:
        """Expected sparsity, differentiable, float64 ()."""
        probabilities = {_name(key): gate.probabilities() for key, gate in self.gates.items()}
        return self.budget.sparsity(self.budget.expected(probabilities))

    @torch.no_grad()
    def sparsity_moved(self, amount: float) -> float:
        """Expected sparsity if all gates were moved alike."""
        probabilities = {_name(key): gate.moved(amount) for key, gate in self.gates.items()}
        return float(self.budget.sparsity(self.budget.expected(probabilities)))

    def move(self, amount: float) -> None:
        """Opens all gates alike by ``amount``, or closes them below 0."""
        for gate in self.gates.values():
            gate.move(amount)

    def mean_step(self) -> float:
        """How far this update's step moved the gates' parameters, on average."""
        now = self._parameters_of_gates()
        return float((now - self._before).abs().mean()) if self._before is not None else 0.0

    def felt(self) -> float:
        """Sum of the masks' gradients by this update's loss, without signs."""
        return self._felt

    def hard_sparsity(self) -> float:
        """Sparsity of the fixed masks."""
        return float(self.budget.sparsity(self.budget.hard(self.hard_masks())))

    @torch.no_grad()
    def after_update(self) -> None:
        """Counts the update and projects gates and multipliers; call it after every step.

        Raises:
            ModelError: no forward pass was masked since the last update, or the loss of some
                updates in a row gave no mask a gradient, so that the gates would learn to be small
                and nothing else.
        """
        if self.controller is not None:
            self._check_felt()
        self.updates += 1
        for gate in self.gates.values():
            gate.project()
        if self.controller is not None:
            self.controller.project()
            self.controller.hold(self)
        for gate in self.gates.values():
            gate.advance(int(self.updates))
        self._passes, self._felt, self._before = 0, 0.0, None

    def _check_felt(self) -> None:
        learned = [g for g in self.gates.values() if any(True for _ in g.parameters())]
        if not learned or all(getattr(gate, "is_settled", False) for gate in learned):
            return
        entry = type(self.site_map.encoder).__name__
        if not self._passes:
            raise ModelError(
                f"after_update: no forward pass was masked since the last one; masks act while "
                f"{entry}'s own forward runs in training, so call the gated model, or {entry}, "
                "and not its blocks"
            )
        self._unfelt = 0 if self._felt else self._unfelt + 1
        if self._unfelt == UNFELT_LIMIT:
            raise ModelError(
                f"after_update: the loss gave the masks no gradient in {UNFELT_LIMIT} updates, so "
                "nothing but their size would be learned; the loss must come of what "
                f"{entry} gives, and not through detach() or no_grad()"
            )

    def _feel(self, gradient: Tensor) -> None:
        self._felt += float(gradient.abs().sum())

    def _parameters_of_gates(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.gates.parameters()]).clone()

    def release(self) -> nn.Module:
        """Takes gates and hooks off again and returns the plain model."""
        for handle in self._handles:
            handle.remove()
        for site in self.site_map.sites.values():
            site.clear()
            site.detach()
        return self.model

    def _deterministic(self, shift: float) -> dict[str, Tensor]:
        return {_name(key): gate.deterministic(shift) for key, gate in self.gates.items()}

    def _noise(self) -> list[Tensor]:
        words = numpy.random.SeedSequence((self.seed, self.rank, int(self.updates)))
        generator = torch.Generator().manual_seed(
            int(words.generate_state(1, numpy.uint64)[0] >> 1)
        )
        sizes = [gate.noise_units for gate in self.gates.values()]
        return list(torch.rand(sum(sizes), generator=generator).split(sizes))

    def _apply_masks(self, module: nn.Module, inputs: tuple) -> None:
        if self._masked_by is not None:
            return
        if self.training:
            self._refuse_recomputing()
        self._masked_by = id(module)
        masks = self.masks()
        if self.training and self.controller is not None:
            self._watch(masks)
        self.open_attention = self._open_attention(masks)
        for name, mask in masks.items():
            self.site_map.sites[name].apply(mask)

    def _watch(self, masks: Mapping[str, Tensor]) -> None:
        """Sees to it that the masks' gradients, and the gates before the update, are known."""
        self._passes += 1
        if self._before is None:
            self._before = self._parameters_of_gates()
        for mask in masks.values():
            if mask.requires_grad:
                mask.register_hook(self._feel)

    def _refuse_recomputing(self) -> None:
        """ModelError for transformers' gradient checkpointing, whose second run has no masks."""
        if any(getattr(m, "gradient_checkpointing", False) for m in self.model.modules()):
            raise ModelError(
                "gradient checkpointing computes layers again after their masks are gone, so "
                "gradients would be wrong; call gradient_checkpointing_disable()"
            )

    def _open_attention(self, masks: Mapping[str, Tensor]) -> list[int | None] | None:
        """Blocks that still attend; None where no branch can close."""
        branches = {n: s for n, s in self.site_map.sites.items() if n.endswith(".attention")}
        if not branches:
            return None
        return [
            site.block
            for name, site in branches.items()
            if all(bool(masks[n].any()) for n in (name, name.rpartition(".")[0]) if n in masks)
        ]

    def _clear_masks(self, module: nn.Module, inputs: tuple, output: object) -> None:
        if self._masked_by != id(module):
            return
        self._masked_by = None
        for site in self.site_map.sites.values():
            site.clear()


def _key(site: str) -> str:
    """A module's name may hold no dot."""
    return site.replace(".", "/")


def _name(key: str) -> str:
    return key.replace("/", ".")
