"""The encoder of OWSM-CTC: an E-Branchformer that is told language, task and a text before.

Some of its blocks end with cross-attention to the text. The tokens of language and task stand
before the frames of sound. MACs are those of recognition without a text, as
``models.espnet.prompt`` asks for it.
"""

from torch import nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.models.e_branchformer import EBranchformer
from espnet_prune.models.espnet.encoder_family import front_ends
from espnet_prune.models.espnet.front_end import subsampling_of
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.parts import Part, Place, cross_attention_part, is_there
from espnet_prune.models.espnet.prompt import PREFIX, TEXT_TOKENS
from espnet_prune.models.family import Support
from espnet_prune.models.graphs import Graph

DEFAULT = "conv2d8"  # ESPnet's front-end where none is named
WITHOUT_PLACE = ("linear", None)  # front-ends that don't put the tokens before the sound


class EBranchformerCtc(EBranchformer):
    """ESPnet's EBranchformerCTCEncoder, in a model ``espnet_ctc``."""

    name = "e_branchformer_ctc"
    title = "ESPnet's EBranchformerCTCEncoder, as OWSM-CTC has it"
    classes = ("EBranchformerCTCEncoder",)
    choices = ("pruned_e_branchformer_ctc",)
    model_choice = "espnet_ctc"
    stock_choice = "e_branchformer_ctc"
    known = {
        **{key: v for key, v in EBranchformer.known.items() if key != "gradient_checkpoint_layers"},
        "input_layer": (
            DEFAULT,
            *(n for n in EBranchformer.known["input_layer"] if n not in (DEFAULT, *WITHOUT_PLACE)),
        ),
    }
    parts = (*EBranchformer.parts, "cross_attn")
    support = Support(
        "ESPnet `e_branchformer_ctc` (OWSM-CTC, from Python)",
        (
            "yes, self- and cross-attention",
            *EBranchformer.support.cells[1:3],
            front_ends(known),
            f"{EBranchformer.support.cells[4]}, cross-attention",
            "yes",
        ),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.e_branchformer_ctc_encoder import EBranchformerCTCEncoder
        return EBranchformerCTCEncoder

    def check(self, encoder: nn.Module) -> None:
        super().check(encoder)
        if subsampling_of(encoder.embed) is None:
            raise ModelError(
                f"input_layer: {type(encoder.embed).__name__} doesn't put the tokens of language "
                f"and task before the sound; known are {', '.join(self.known['input_layer'])}"
            )

    def about_stack(self, encoder: nn.Module) -> dict:
        """One segment, the tokens of language and task before its frames."""
        return {"segments": lambda positions: (len(PREFIX) + positions, 1)}

    def positions(self, encoder: nn.Module, frames: int) -> int:
        return len(PREFIX) + super().positions(encoder, frames)

    def block_parts(
        self, layer: nn.Module, index: int, positions: int, block: str | None
    ) -> tuple[list[Part], list[CostTerm]]:
        parts, others = super().block_parts(layer, index, positions, block)
        if is_there(layer.cross_attn):
            norm, branch = "norm_cross_attn", "cross_attention"
            place = Place(layer, index, "cross_attn", norm, branch, positions, block)
            parts.append(cross_attention_part(place, TEXT_TOKENS))
        return parts, others

    def options(self, encoder: nn.Module) -> dict:
        options = super().options(encoder)
        options.pop("qk_norm", None)  # which it has not
        return {
            **options,
            "use_cross_attention": [layer.cross_attn is not None for layer in encoder.encoders],
            "use_flash_attn": isinstance(encoder.encoders[0].attn.dropout, nn.Identity),
        }

    def graphs(self, model: nn.Module) -> list[Graph]:
        if self.encoder_of(model) is model:
            raise ModelError(
                f"{type(model).__name__}: an encoder alone has nothing that tells it language and "
                "task; export the whole model"
            )
        return super().graphs(model)

    def stream_graph(self, model: nn.Module) -> nn.Module:
        from espnet_prune.models.espnet.encoder_graphs import PromptedEncoderGraph

        return PromptedEncoderGraph(model, self.norms_between)


FAMILY = EBranchformerCtc()
