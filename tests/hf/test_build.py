"""Descriptions of transformers' models that can't be built are refused by name."""

import json

import pytest
from tiny_ssl import ssl_model

from espnet_prune.errors import ModelError
from espnet_prune.hf.build import build_model, generation_config
from espnet_prune.surgery import load, save


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder, and what its description says of the model."""
    folder = save(ssl_model(), tmp_path_factory.mktemp("hf") / "m")
    return folder, json.loads((folder / "model.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": None}, "config: no configuration"),
        ({"config": [1]}, "config: no configuration"),
        ({"class": ["Wav2Vec2ForCTC"]}, "class: .*is not known"),
        ({"attention": "nope"}, "attn_implementation"),
        ({"attention": "flash_attention_2"}, "FlashAttention2"),
        ({"plan": []}, "plan: schema"),
        ({"generation_config": [1]}, "generation_config: not one of transformers"),
    ],
    ids=str,
)
def test_a_damaged_description_is_named(saved, change, message):
    folder, description = saved
    changed = {**description, "config": {**description["config"], **change}}
    (folder / "model.json").write_text(json.dumps(changed))
    with pytest.raises(ModelError, match=f"m/model.json: .*{message}"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "nope"}, {"hidden_size": "a"}, {"conv_dim": [8]}, {"num_attention_heads": 0}],
    ids=str,
)
def test_a_configuration_that_transformers_does_not_take_is_a_model_error(saved, change):
    description = saved[1]["config"]
    changed = {**description, "config": {**description["config"], **change}}
    with pytest.raises(ModelError, match="Wav2Vec2ForCTC: no model of this configuration"):
        build_model(changed)


def test_a_description_without_its_attention_takes_the_default(saved):
    description = {k: v for k, v in saved[1]["config"].items() if k != "attention"}
    assert type(build_model(description)).__name__ == "Wav2Vec2ForCTC"


def test_settings_of_generation_that_are_no_mapping_are_refused():
    with pytest.raises(ModelError, match="generation_config"):
        generation_config(3)
