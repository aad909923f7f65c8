"""Feature extractor channels cut in an ESPnet model: rebuilt without the hub, frozen as before."""

import pytest
import torch
from tiny_ssl import TRANSFORMER, letters_model

from espnet_prune.methods import make_method
from espnet_prune.models.espnet.features import random_input
from espnet_prune.surgery import cut, inject, load, plan_of, save

FRONT = {**TRANSFORMER, "num_hidden_layers": 1, "conv_dim": [8, 6]}
NORMS = [
    ("Wav2Vec2Model", {}),
    ("HubertModel", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
]


@pytest.mark.parametrize("class_name, norm", NORMS)
def test_a_cut_front_end_is_saved_and_loaded(tmp_path, class_name, norm):
    conf = {"model": {**FRONT, **norm}, "class_name": class_name}
    model = letters_model(conf, ["<blank>", "<unk>", "A", "<sos/eos>"])
    options = {"sites": ["front_end_channel", "head"], "budget": {"tolerance": 0.2}}
    method = make_method("random", options, target=0.5)
    gated = inject(model, method).eval()
    masks = method.masks(gated)
    gated.masks = lambda: masks
    small = cut(gated, masks)
    with torch.no_grad():
        masked = gated.model.encoder(*random_input(model, 0.3))[0]
        ours = small.encoder(*random_input(model, 0.3))[0]
        torch.testing.assert_close(ours, masked, atol=1e-5, rtol=1e-4)
        loaded = load(save(small, tmp_path / "small"))
        assert torch.equal(loaded.encoder(*random_input(model, 0.3))[0], ours)
    assert plan_of(loaded) == plan_of(small)
    widths = loaded.encoder.model.config.conv_dim
    assert list(widths) == [int(masks[f"front_end.{i}"].sum()) for i in (0, 1)] != [8, 6]
    front = loaded.encoder.model.feature_extractor
    assert not any(p.requires_grad for p in front.parameters())
