"""The MultiConvFormer of ESPnet: a Conformer with gating MLPs of several convolutions."""

from torch import nn

from espnet_prune.models.conformer.family import Conformer
from espnet_prune.models.espnet.imports import importing_espnet
from espnet_prune.models.espnet.options import activation_name, gating_options
from espnet_prune.models.family import Support


class MultiConvFormer(Conformer):
    """ESPnet's MultiConvConformerEncoder."""

    name = "multiconvformer"
    title = "ESPnet's MultiConvConformerEncoder"
    classes = ("MultiConvConformerEncoder",)
    choices = ("pruned_multiconv_conformer",)
    stock_choice = "multiconv_conformer"
    support = Support(
        "ESPnet `multiconv_conformer`",
        (*Conformer.support.cells[:2], "yes, the gating MLP's", *Conformer.support.cells[3:]),
    )

    def stock_class(self) -> type:
        with importing_espnet():
            from espnet2.asr.encoder.multiconvformer_encoder import MultiConvConformerEncoder
        return MultiConvConformerEncoder

    def options(self, encoder: nn.Module) -> dict:
        options = super().options(encoder)
        for key in ("use_sdpa", "qk_norm"):  # which it doesn't have
            options.pop(key, None)
        return options

    def convolution_options(self, module: nn.Module | None) -> dict:
        if module is None:
            return {}
        gate = module.csgu
        kernels = ",".join(str(conv.kernel_size[0]) for conv in gate.convs)
        options = {
            **gating_options(gate),
            "multicgmlp_type": gate.arch_type,
            "multicgmlp_kernel_sizes": kernels,
            "multicgmlp_use_non_linear": gate.use_non_linear,
            "activation_type": activation_name(gate.model_act),
        }
        if gate.depthwise_conv_fusion is not None:
            options["multicgmlp_merge_conv_kernel"] = gate.depthwise_conv_fusion.kernel_size[0]
        return options

    def speed_up(self, model: nn.Module, search=None) -> None:
        return


FAMILY = MultiConvFormer()
