"""The record of a family: beside its sites, how it is built, decoded and exported."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy
from torch import Tensor, nn

from espnet_prune.errors import ModelError
from espnet_prune.models.graphs import Graph
from espnet_prune.models.huggingface.fronts import is_silent
from espnet_prune.models.origins import Origin
from espnet_prune.sites import RANK, DecoderConfig, SiteMap
from espnet_prune.sites.base import BLOCK, FRONT_END_CHANNEL
from espnet_prune.surgery.cut import REFERENCE_SECONDS
from espnet_prune.surgery.families import Family
from espnet_prune.surgery.plan import Plan, SitePlan

COLUMNS = (
    "heads",
    "feed-forward units",
    "convolution channels",
    "front-end channels",
    "branches",
    "blocks",
)


@dataclass(frozen=True)
class Support:
    """A row of the README's table of what can be pruned; each value is a cell.

    Attributes:
        model: which models.
        cells: one for each of ``COLUMNS``.
    """

    model: str
    cells: tuple[str, str, str, str, str, str]

    def row(self) -> str:
        """The row in Markdown."""
        return "| " + " | ".join((self.model, *self.cells)) + " |"


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of a batch.

    Attributes:
        output: (B, T, D), after the last norm.
        lengths: (B,), in frames.
        hidden: (B, T, D) by block; of the last, before the encoder's last norm where it has one,
            but after it in Whisper, whose last is ``output``.
        heard: (B, T, D) by each layer of intermediate CTC.
    """

    output: Tensor
    lengths: Tensor
    hidden: Sequence[Tensor] = ()
    heard: Sequence[Tensor] = ()


class Transcriber(Protocol):
    """What turns samples into text.

    Attributes:
        model: an ESPnetASRModel.
        modes: modes of decoding, the best one last.
    """

    model: Any
    modes: Sequence[str]

    def transcribe(self, samples: numpy.ndarray, mode: str, name: str = "") -> str:
        """Text of int16 samples (samples,), its words separated by single spaces."""

    def ids(self, text: str) -> list[int]:
        """The tokens of a transcript, as the model's training has them."""

    def comparable(self, text: str) -> str:
        """A transcript as its words are counted."""


class ModelFamily(Family):
    """All that is known of one family.

    Attributes:
        support: its row of the README's table.
        choices: its names among ESPnet's encoders or decoders, the one for cut models first.
        model_choice: ESPnet's name of the models that have such an encoder.
        is_stock: whether stock ESPnet loads its models once its classes are registered.
        ready_as_pretrained: whether a teacher may be taken without any training.
        usage: use of a saved model in Python, for its card: lines beside those for every model.
        origins: which models trained elsewhere it reads, in words; none by default.
    """

    support: ClassVar[Support]
    choices: ClassVar[tuple[str, ...]] = ()
    model_choice: ClassVar[str] = "espnet"
    is_stock: ClassVar[bool] = True
    ready_as_pretrained: ClassVar[bool] = False
    usage: ClassVar[str] = ""
    origins: ClassVar[str] = ""

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        """Classes by name, for ESPnet's choices: of ``encoder``, ``decoder`` and ``frontend``."""
        return {}

    def joined(self, model: nn.Module, plan: Mapping[str, Any] | None = None) -> nn.Module:
        """An ESPnet model that was just built of such an encoder, made ready.

        Args:
            model: an ESPnetASRModel; its weights stay as they are.
            plan: as JSON, where the whole model has one instead of its parts.

        Raises:
            ModelError: its parts have their own plans, or it is the plan of another model.
        """
        if plan is not None:
            raise ModelError(
                f"pruned_arch: a plan of the whole model; that of {self.title} belongs into "
                "encoder_conf or decoder_conf"
            )
        return model

    def is_origin(self, source: str) -> bool:
        """Whether a file or name is that of a model trained elsewhere which it reads."""
        return False

    def open_origin(self, source: str) -> AbstractContextManager[Origin]:
        """That model.

        Raises:
            DataError, ModelError, EnvironmentProblem: it isn't there, or not as it is known.
        """
        raise ModelError(f"{source}: no model of {self.title} is imported")

    def untrained(self, config: Mapping) -> dict:
        """The configuration of a model whose weights are all to be drawn anew."""
        return dict(config)

    def hears_nothing(self, model: nn.Module) -> bool:
        """Whether an ESPnet model was cut so far that no sound gets past its front-end."""
        return False

    def encode(self, model: nn.Module, feats: Tensor, lengths: Tensor) -> Encoded:
        """What a whole model's encoder makes of a batch, in training or evaluation.

        Args:
            model: an ESPnetASRModel.
            feats: (B, T, F) features, or samples where there is no front-end.
            lengths: (B,).
        """
        (output, hidden), lengths, _ = model.encoder(feats, lengths, return_all_hs=True)
        return Encoded(output, lengths, hidden)

    def speed_up(self, model: nn.Module, search: Any = None) -> None:
        """Lets decoding be faster with the same outputs, where this family knows how.

        Args:
            model: an ESPnetASRModel in evaluation mode.
            search: ESPnet's beam search over it, if there is one.
        """
        return

    def open_recogniser(self, folder: Path, segment_seconds: float) -> Transcriber:
        """What decodes with a saved model of a family whose models aren't stock ESPnet's."""
        raise ModelError(f"{folder}: models of {self.title} are decoded by ESPnet's search")

    def graphs(self, model: nn.Module) -> list[Graph]:
        """What a model, in evaluation mode, is exported as.

        Raises:
            ModelError: it, or a part of it, can't be exported.
        """
        raise ModelError(f"{type(model).__name__}: {self.title} can't be exported")

    def describe_graphs(self, model: nn.Module) -> dict:
        """What a program must know to feed the graphs and to read their outputs, as JSON."""
        raise ModelError(f"{type(model).__name__}: {self.title} can't be exported")


class TransformersFamily(ModelFamily):
    """Models of transformers, which ESPnet models may have parts of.

    Attributes:
        transformers_classes: those that a saved folder may name, and of their configurations.
    """

    transformers_classes: ClassVar[Mapping[str, str]]

    def is_transformers(self, model: nn.Module) -> bool:
        """Whether it is one of these classes, and no ESPnet model with its parts."""
        return type(model).__name__ in self.transformers_classes

    def describe_graphs(self, model: nn.Module) -> dict:
        return {"kind": "transformers", "class": type(model).__name__}

    def espnet_input(self, folder: Path, config: Any) -> dict[str, Any]:
        """How an ESPnet model around one reads sound as it does: keys of its configuration.

        Args:
            folder: of ``save_pretrained``, with what its feature extractor says.
            config: transformers' configuration of the model without its output layer.

        Raises:
            DataError, ModelError: it doesn't say; or it reads sound otherwise than is known.
        """
        raise ModelError(f"{folder}: {self.title} can't be the encoder of an ESPnet model")

    def dense_config(self, model: nn.Module) -> dict:
        """transformers' configuration of the model before its cut, which a plan starts from."""
        return model.config.to_dict()

    def whole_plan(self, model: nn.Module, plan: Plan) -> Plan:
        """A plan of units; one from before front-ends, or blocks, were cut keeps all of these."""
        if plan.of_kinds((RANK,), others=True) is None:
            return plan
        later = self.sites(model, REFERENCE_SECONDS).of_kinds((FRONT_END_CHANNEL, BLOCK))
        whole = {s.name: SitePlan(s.kind, s.block, s.units, tuple(range(s.units))) for s in later}
        return Plan({**whole, **plan.sites})

    def hears_nothing(self, model: nn.Module) -> bool:
        return is_silent(model)

    @staticmethod
    def refuse_decoder(model: nn.Module, decoder: DecoderConfig | None) -> None:
        """ModelError where a decoder is asked for, which can't be chosen."""
        if decoder is not None:
            raise ModelError(
                f"decoder: of {type(model).__name__} there is none to be chosen (Whisper's is "
                "always pruned with its encoder); leave the method's key `decoder` out"
            )


class DecoderFamily(ModelFamily):
    """Decoders of ESPnet's models."""

    @abstractmethod
    def decoder_sites(
        self,
        model: nn.Module,
        config: DecoderConfig,
        reference_seconds: float,
        positions: int,
        first_block: int,
    ) -> SiteMap:
        """All sites of a decoder and what they cost.

        Args:
            model: the ESPnetASRModel that has it; nothing in it is changed.
            config: what MACs are counted for.
            reference_seconds: length of the utterance that MACs are counted for.
            positions: positions of the encoder's output for it.
            first_block: index of its first block, the number of the encoder's.

        Raises:
            ModelError: cutting rules that aren't known; one already cut.
        """

    def beside(self, config: Mapping[str, Any], plan: Plan) -> dict:
        """What else of a whole model's ESPnet configuration the cut of such a decoder changes.

        Args:
            config: that of the model before it.
            plan: the decoder's.
        """
        return {}
