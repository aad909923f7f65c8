"""Loss and greedy text of a saved ESPnet model while chosen units are masked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from espnet_prune.budget import resolve
from espnet_prune.data.audio_io import read_audio
from espnet_prune.data.kaldi_dir import where
from espnet_prune.decode.recogniser import (
    FULL_SCALE,
    DecodeConfig,
    open_recogniser,
    rate_of,
)
from espnet_prune.errors import DataError, ModelError
from espnet_prune.gates import FixedGate
from espnet_prune.sites import DecoderConfig, Site
from espnet_prune.surgery import inject
from espnet_prune.surgery.holding import holding


@dataclass(frozen=True)
class Utterance:
    """One of a dump folder: its name, wav.scp entry and transcript."""

    folder: Path
    name: str
    entry: str
    text: str


@dataclass(frozen=True)
class _OpenGates:
    """What ``inject`` asks of a method: gates that only hold masks."""

    site_kinds: tuple[str, ...]
    decoder: DecoderConfig | None = None
    measure: str = "parameters"
    reference_seconds: float = 10.0
    seed: int = 0

    def make_gate(self, site: Site) -> FixedGate:
        return FixedGate(site.units)

    def make_controller(self) -> None:
        return None


class Probe:
    """A model in evaluation mode whose sites can be masked, with utterances to try it on.

    Args:
        folder: the model's, with ``espnet`` in it.
        utterances: what it is tried on, one by one, without padding.
        kinds: kinds of the sites that are looked at.
        decoder: given, those of its decoder too.

    Attributes:
        site_map: the model's sites.
        sites: those of the kinds, by name.

    Raises:
        ModelError: it can't be loaded or pruned, or has neither CTC nor a greedy search.
    """

    def __init__(
        self,
        folder: Path,
        utterances: Sequence[Utterance],
        kinds: Sequence[str],
        decoder: DecoderConfig | None = None,
    ) -> None:
        self.recogniser = open_recogniser(folder, DecodeConfig(modes=("greedy",)))
        self.model = self.recogniser.model
        if self.model.ctc is None and not self._searches():
            raise ModelError(f"{folder}: this model has no CTC, whose greedy text gives the WER")
        self.gated = inject(self.model, _OpenGates(tuple(kinds), decoder)).eval()
        self.site_map = self.gated.site_map
        self.sites = {site.name: site for site in self.site_map.of_kinds(kinds)}
        self.utterances = utterances

    def measure(self, masks: Mapping[str, Tensor]) -> tuple[float, dict[str, str]]:
        """Mean loss of the labels, as in training, and greedy texts by utterance.

        Args:
            masks: (units,) by site; what follows from them is masked too, the rest is not.

        Raises:
            DataError: an utterance is too short for the front-end, or has no finite loss.
        """
        losses, texts = [], {}
        with holding(self.gated, resolve(self.site_map, masks)):
            for utterance in self.utterances:
                loss, texts[utterance.name] = self._run(utterance)
                losses.append(loss)
        return math.fsum(losses) / len(losses), texts

    def comparable(self, text: str) -> str:
        """A transcript as its words are counted."""
        return self.recogniser.comparable(text)

    def _searches(self) -> bool:
        """Whether the model has a greedy search without CTC."""
        return self.model.ctc is None and "greedy" in self.recogniser.modes

    @torch.no_grad()
    def _run(self, utterance: Utterance) -> tuple[float, str]:
        """Loss and text; by CTC both come of one forward pass."""
        place = where(utterance.folder, utterance.name)
        samples, _ = read_audio(utterance.entry, place, rate_of(self.recogniser))
        if self._searches():
            loss = self._loss(samples, utterance.text, place)
            return loss, self.recogniser.transcribe(samples, "greedy", utterance.name)
        encoded: list[Tensor] = []
        handle = self.model.ctc.register_forward_pre_hook(
            lambda module, inputs: encoded.append(inputs[0])
        )
        try:
            loss = self._loss(samples, utterance.text, place)
        finally:
            handle.remove()
        best = self.model.ctc.argmax(encoded[0])[0]  # intermediate CTC, if any, comes later
        return loss, " ".join(self.recogniser.collapsed(best).split())

    def _loss(self, samples: numpy.ndarray, text: str, place: str) -> float:
        """The labels' loss of int16 samples (samples,)."""
        from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError

        speech = torch.from_numpy(samples).float()[None] / FULL_SCALE
        tokens = self._tokens(text)
        lengths = torch.tensor([speech.shape[1]])
        try:
            loss = self.gated(speech, lengths, tokens, torch.tensor([tokens.shape[1]]))[0].item()
        except TooShortUttError as error:
            problem = f"{place}: too short for the front-end ({error}); leave it out"
            raise DataError(problem) from error
        if not math.isfinite(loss):
            raise DataError(
                f"{place}: the loss is {loss:g}, not finite; is the model damaged, or the "
                "utterance too short for its transcript?"
            )
        return loss

    def _tokens(self, text: str) -> Tensor:
        """The transcript's token ids (1, L)."""
        return torch.tensor([self.recogniser.ids(text)])
