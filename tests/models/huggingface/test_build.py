"""Descriptions of transformers' models that can't be built are refused by name."""

import json

import pytest
from tiny_ssl import SIZES, ssl_model

from espnet_prune.errors import ModelError
from espnet_prune.models.huggingface.build import (
    check_options,
    from_config,
    generation_config,
    load_pretrained,
)
from espnet_prune.models.huggingface.format import TransformersFormat
from espnet_prune.surgery import load, save

FORMAT = TransformersFormat()


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
        FORMAT.build(changed)


def test_a_description_without_its_attention_takes_the_default(saved):
    description = {k: v for k, v in saved[1]["config"].items() if k != "attention"}
    assert type(FORMAT.build(description)).__name__ == "Wav2Vec2ForCTC"


def test_an_option_that_nothing_reads_is_named_with_the_nearest(tmp_path):
    ssl_model().save_pretrained(tmp_path)
    said = r"options: 'layerdropp' .*Wav2Vec2ForCTC \(did you mean 'layerdrop'\?\)"
    with pytest.raises(ModelError, match=said):
        load_pretrained(str(tmp_path), "Wav2Vec2ForCTC", True, {"layerdropp": 0.1})
    with pytest.raises(ModelError, match=said):
        from_config("Wav2Vec2ForCTC", SIZES, options={"layerdropp": 0.1})
    with pytest.raises(ModelError, match="options: 'dtype' can't be set"):
        load_pretrained(str(tmp_path), "Wav2Vec2ForCTC", True, {"dtype": "float16"})


def test_options_win_over_the_configuration(tmp_path):
    options = {"layerdrop": 0.25, "attn_implementation": "sdpa"}
    ssl_model().save_pretrained(tmp_path)
    read = load_pretrained(str(tmp_path), "Wav2Vec2ForCTC", True, options)
    made = from_config("Wav2Vec2ForCTC", SIZES, options=options)
    for model in (read, made):
        assert (model.config.layerdrop, model.config._attn_implementation) == (0.25, "sdpa")


def test_whisper_takes_the_other_names_of_its_keys():
    check_options("WhisperForConditionalGeneration", {"hidden_size": 8, "d_model": 8})


def test_a_saved_configuration_may_have_keys_of_another_version():
    assert from_config("Wav2Vec2ForCTC", {**SIZES, "key_of_another_version": 1})


def test_settings_of_generation_that_are_no_mapping_are_refused():
    with pytest.raises(ModelError, match="generation_config"):
        generation_config(3)
