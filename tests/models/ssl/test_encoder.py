"""wav2vec 2.0 and HuBERT as an encoder of ESPnet: cut, saved, and loaded by stock ESPnet."""

import numpy
import pytest
import torch
from tiny_ssl import TRANSFORMER, letters_model

from espnet_prune.budget import resolve
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.recogniser import Recogniser
from espnet_prune.errors import ModelError
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.features import random_input
from espnet_prune.models.espnet.folder import write_espnet_folder
from espnet_prune.surgery import cut, inject, load, plan_of, save
from espnet_prune.train.cutting import _drawn_anew

SECONDS = 0.3


def asr_model(class_name="Wav2Vec2Model", **transformer):
    """A tiny CTC model on characters."""
    conf = {"model": {**TRANSFORMER, **transformer}, "class_name": class_name}
    return letters_model({**conf, "options": {"layerdrop": 0.0, "mask_time_prob": 0.0}})


def method(name="l0_distill", **options):
    return make_method(name, options, target=0.5, updates=4)


def encoded(model):
    with torch.no_grad():
        return model.encoder(*random_input(model, SECONDS))[0]


@pytest.mark.parametrize("class_name", ["Wav2Vec2Model", "HubertModel"])
@pytest.mark.parametrize("name", ["l0_distill", "self_pinching_weights"])
def test_cut_equals_masked_and_loads_everywhere(tmp_path, class_name, name):
    norm = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    model = asr_model(class_name, **(norm if class_name == "HubertModel" else {}))
    chosen = method(name, budget={"tolerance": 0.05})
    gated = inject(model, chosen).eval()
    masks = chosen.masks(gated)
    gated.masks = lambda: masks
    masked = encoded(gated.model)
    small = cut(gated, masks)
    torch.testing.assert_close(encoded(small), masked, atol=1e-5, rtol=1e-4)
    save(small, tmp_path)
    loaded = load(tmp_path)
    assert torch.equal(encoded(loaded), encoded(small))
    assert (plan_of(loaded) is None) == (name == "self_pinching_weights")
    write_espnet_folder(small, tmp_path / "espnet")
    text = Recogniser(tmp_path, DecodeConfig(modes=("greedy",))).transcribe(
        (3000 * numpy.random.default_rng(0).normal(size=8000)).astype("int16"), "greedy"
    )
    assert text == " ".join(text.split())


@pytest.mark.parametrize(
    "class_name, options",
    [("WavLMModel", {}), ("Wav2Vec2ConformerModel", {"conv_depthwise_kernel_size": 5})],
)
def test_kin_lose_blocks_with_their_hidden_states(class_name, options, tmp_path):
    gated = inject(asr_model(class_name, **options), method("random", sites=["head", "block"]))
    small = cut(gated, resolve(gated.site_map, {"block.1": torch.zeros(1)}))
    loaded = load(save(small, tmp_path))
    assert torch.equal(encoded(loaded), encoded(small))
    (_, hidden), _, _ = loaded.encoder(*random_input(loaded, SECONDS), return_all_hs=True)
    assert len(hidden) == len(loaded.encoder.encoders) == 1


def test_a_recording_is_standardised_over_its_own_samples():
    model = asr_model(feat_extract_norm="layer", do_stable_layer_norm=True)
    samples, lengths = random_input(model, SECONDS)
    alone, alone_length, _ = model.encoder(samples[1:, : lengths[1]], lengths[1:])
    together, both, _ = model.encoder(3 * samples + 1, lengths)
    assert both[1] == alone_length[0] < both[0]
    frames = int(alone_length[0])
    torch.testing.assert_close(together[1, :frames], alone[0], atol=1e-4, rtol=1e-3)


def test_every_layer_teaches():
    model = asr_model()
    (last, hidden), _, _ = model.encoder(*random_input(model, SECONDS), return_all_hs=True)
    assert len(hidden) == len(model.encoder.encoders) == 2
    assert torch.equal(hidden[-1], last)


def test_least_samples_give_one_frame():
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError

    encoder = asr_model().encoder
    least = encoder.least()
    _, frames, _ = encoder(torch.randn(1, least), torch.tensor([least]))
    assert frames.tolist() == [1]
    with pytest.raises(TooShortUttError, match="no frame"):
        encoder(torch.randn(1, least - 1), torch.tensor([least - 1]))


@pytest.mark.parametrize("class_name", ["Wav2Vec2Model", "HubertModel"])
def test_recordings_shorter_than_a_mask_are_trained_on(class_name):
    from espnet_prune.models.ssl.encoder import SslEncoder

    encoder = SslEncoder(1, {**TRANSFORMER, "mask_time_prob": 0.5}, class_name).train()
    samples = 9 * 20  # of a frame each
    _, frames, _ = encoder(torch.randn(2, samples), torch.tensor([samples, samples]))
    assert 0 < int(frames.max()) < 10


def test_features_instead_of_samples_are_refused():
    from espnet_prune.models.ssl.encoder import SslEncoder

    with pytest.raises(ModelError, match="frontend: null and input_size: 1"):
        SslEncoder(80, model=TRANSFORMER)
    with pytest.raises(ModelError, match="no model of this configuration"):
        SslEncoder(1, model={**TRANSFORMER, "num_attention_heads": 5})
    with pytest.raises(ModelError, match="ParakeetEncoder doesn't read samples.*WavLMModel"):
        SslEncoder(1, model=TRANSFORMER, class_name="ParakeetEncoder")
    with pytest.raises(ModelError, match="Wav2Vec2Mode"):
        SslEncoder(1, model=TRANSFORMER, class_name="Wav2Vec2Mode")


def test_a_name_that_is_not_there_is_named(tmp_path):
    from espnet_prune.models.ssl.encoder import SslEncoder

    with pytest.raises(ModelError, match="nowhere.*save_pretrained"):
        SslEncoder(1, model=str(tmp_path / "nowhere"), offline=True)


def test_a_folder_of_transformers_is_read(tmp_path):
    from espnet_prune.models.ssl.encoder import SslEncoder

    source = asr_model().encoder
    source.model.save_pretrained(tmp_path)
    encoder = SslEncoder(1, model=str(tmp_path), options={"layerdrop": 0.0}).eval()
    assert encoder.model.config.layerdrop == 0.0
    state = source.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    assert not any(p.requires_grad for p in encoder.model.feature_extractor.parameters())


def test_a_model_drawn_anew_learns_its_front_too(tmp_path):
    fresh = _drawn_anew(asr_model(), seed=1)
    save(fresh, tmp_path)
    loaded = load(tmp_path)
    assert torch.equal(encoded(loaded), encoded(fresh))
    assert not torch.equal(encoded(fresh), encoded(asr_model()))
    assert all(p.requires_grad for p in loaded.encoder.model.feature_extractor.parameters())


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_mistyped_option_is_named(tmp_path, as_folder):
    from espnet_prune.models.ssl.encoder import SslEncoder

    asr_model().encoder.model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="did you mean 'layerdrop'"):
        SslEncoder(1, str(tmp_path) if as_folder else TRANSFORMER, options={"layerdropp": 0.1})
