"""Methods that look at data or merge weights, on tiny wav2vec 2.0 and HuBERT models."""

import pytest
import torch
from tiny_ssl import TRANSFORMER

from espnet_prune.methods import make_method
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.fold import clusters_of, fold
from espnet_prune.surgery.holding import holding

SIZES = {**TRANSFORMER, "intermediate_size": 96, "vocab_size": 12, "mask_time_prob": 0.0}


def ssl_model(family: str = "Wav2Vec2") -> torch.nn.Module:
    """A tiny model with a CTC head, its biases not what they are at the start."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES)
    model = getattr(transformers, f"{family}ForCTC")(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
    return model


def one_utterance() -> dict[str, torch.Tensor]:
    audio = torch.randn(1, 3200, generator=torch.Generator().manual_seed(3))
    return {"input_values": audio, "labels": torch.tensor([[3, 4, 5]])}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(one_utterance()["input_values"]).logits


@pytest.mark.parametrize("name", ["fisher", "folding", "nas"])
@pytest.mark.parametrize("model", ["Wav2Vec2", "Hubert"])
def test_the_target_is_reached_and_the_cut_is_what_was_masked(name, model):
    sites = {"sites": ["head", "feed_forward_unit", "branch"]}
    method = make_method(name, sites, target=0.4)
    gated = inject(ssl_model(model), method).eval()
    passes = [lambda: gated(**one_utterance()).loss] if method.calibration_utterances else []
    masks = method.masks(gated, passes) if passes else method.masks(gated)
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(0.4, abs=method.config.budget.tolerance)
    method.rewrite(gated, masks)
    small = cut(gated, masks)
    with holding(gated, masks):
        assert (logits(gated) - logits(small)).abs().max() < 1e-5


def test_equal_units_are_folded_without_loss():
    gated = inject(ssl_model(), make_method("folding")).eval()
    masks = {name: torch.ones(site.units) for name, site in gated.site_map.sites.items()}
    with torch.no_grad():
        for site in gated.site_map.of_kinds(("head", "feed_forward_unit")):
            for rows in site.unit_rows():
                rows[1::2] = rows[0::2]
            weight = site.consumer.weight
            even, odd = (site.columns(torch.arange(i, site.units, 2)) for i in (0, 1))
            weight[:, odd] = 1.1 * weight[:, even]
    dense = logits(gated)
    for site in gated.site_map.of_kinds(("head", "feed_forward_unit")):
        fold(site, clusters_of(site, site.units // 2))
        masks[site.name][1::2] = 0.0
    with holding(gated, masks):
        assert (logits(gated) - dense).abs().max() < 1e-5
