"""Tiny wav2vec 2.0 and HuBERT models with random weights, and what every test of them checks."""

from collections.abc import Sequence

import tiny_models
import torch
from random_structures import random_structure
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget
from espnet_prune.models.espnet.build import build_asr_model
from espnet_prune.models.huggingface.teacher import asr_config
from espnet_prune.surgery import cut, inject

SECONDS = 0.2
LETTERS = ("<blank>", "<unk>", "<space>", "A", "B", "<sos/eos>")
KINDS = ("head", "feed_forward_unit", "branch")
ALL_KINDS = (*KINDS, "front_end_channel")
EVERY_KIND = (*ALL_KINDS, "convolution_channel", "block")
CLASSES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "conformer": "Wav2Vec2Conformer",
}
MODELS = ["wav2vec2", "wav2vec2_stable", "hubert", "hubert_stable"]
TRANSFORMER = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
SIZES = {
    **TRANSFORMER,
    "conv_dim": [8, 6, 8],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3,
    "vocab_size": 12,
    "layerdrop": 0.0,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "mask_time_prob": 0.0,
    "attn_implementation": "eager",
}


def ssl_model(name: str = "wav2vec2", seed: int = 0, **options):
    """A tiny model with a CTC head, its biases not what they are at the start."""
    import transformers

    family = CLASSES[name.split("_")[0]]
    stable = name.endswith("stable")
    norm = {"feat_extract_norm": "layer", "do_stable_layer_norm": True} if stable else {}
    if name.startswith("conformer"):
        positions = name.partition("_")[2] or "relative"
        norm = {"position_embeddings_type": positions, "conv_depthwise_kernel_size": 5}
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **norm, **options})
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCTC")(config).eval()
    tiny_models.randomise(model)
    if name not in MODELS:  # so that positions and heads are felt
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, 0.0, 0.3)
    return model


def letters_model(encoder_conf: dict, tokens: Sequence[str] = LETTERS) -> torch.nn.Module:
    """An ESPnet model of letters around such an encoder."""
    torch.manual_seed(0)
    return build_asr_model(asr_config(tokens, encoder_conf)).eval()


def core_of(model) -> torch.nn.Module:
    return getattr(model, model.config.model_type.replace("-", "_"))


def batch() -> dict[str, torch.Tensor]:
    """Two recordings of noise, one shorter, with labels."""
    generator = torch.Generator().manual_seed(3)
    audio = torch.randn(2, int(SECONDS * 16000), generator=generator)
    mask = torch.ones_like(audio, dtype=torch.long)
    mask[1, 2000:] = 0
    labels = torch.tensor([[3, 4, 5], [6, 7, -100]])
    return {"input_values": audio, "attention_mask": mask, "labels": labels}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch()).logits


class Ssl(tiny_models.AllSites):
    reference_seconds = SECONDS


def gated_with(name: str, setter, kinds=KINDS, **options):
    gated = inject(ssl_model(name, **options), Ssl(kinds, learned=False)).eval()
    for site in gated.gate_names():
        gated.gate(site).set(setter(gated.site_map.sites[site]))
    return gated


def check_structure(gated, seed: int) -> torch.nn.Module:
    """Gives every gate its mask of a random structure, and ``check``s that."""
    for name, mask in random_structure(gated, seed).items():
        gated.gate(name).set(mask)
    return check(gated)


def random_mask(site, soft: bool):
    return tiny_models.random_mask(site, soft, branch=0.7)


def check(gated) -> torch.nn.Module:
    """Masked equals cut; parameters and MACs are exactly what the budget says."""
    small = cut(gated)
    assert float((logits(gated) - logits(small)).abs().max()) < 5e-6
    masks, core = gated.hard_masks(), core_of(small)
    kept = sum(p.numel() for p in core.parameters())
    assert kept == gated.budget.total - gated.budget.prunable + gated.budget.hard(masks)
    macs = Budget(gated.site_map, gated.gate_names(), "macs")
    samples = torch.zeros(1, int(SECONDS * 16000))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        core(samples)
    assert counter.get_total_flops() // 2 == macs.total - macs.prunable + macs.hard(masks)
    return small
