"""A damaged description of a saved model is refused by name, whatever is wrong in it."""

import json

import pytest
from tiny_models import AllSites, encoder

from espnet_prune.errors import ConfigError, DataError, ModelError
from espnet_prune.surgery import cut, inject, load, save


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of a cut encoder, and its description."""
    small = cut(inject(encoder(), AllSites(learned=False)).eval())
    folder = save(small, tmp_path_factory.mktemp("saved") / "small")
    return folder, json.loads((folder / "model.json").read_text())


def refused(saved, description, message) -> None:
    folder, _ = saved
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_a_whole_description_is_taken(saved):
    folder, description = saved
    (folder / "model.json").write_text(json.dumps(description))
    assert not load(folder).training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": ["conformer_encoder"]}, "kind: str was expected"),
        ({"kind": "nothing"}, "kind 'nothing', expected one of"),
        ({"config": None}, "config: a mapping was expected"),
        ({"config": [1]}, "config: a mapping was expected"),
        ({"config": {"bpemodel": 3}}, "config: bpemodel: a name was expected"),
        ({"sparse": ["a"]}, "sparse: a mapping was expected"),
        ({"sparse": {"a": "ab"}}, "sparse.a: a list was expected"),
        ({"sparse": {"a": [1.5]}}, r"sparse.a\[0\]: int was expected"),
        ({"tied": ["a"]}, "tied: a mapping was expected"),
        ({"tied": {"a": ["b"]}}, "tied.a: str was expected"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_named(saved, change, message):
    refused(saved, {**saved[1], **change}, f"model.json: {message}")


def test_what_is_no_mapping_or_lacks_its_configuration_is_named(saved):
    description = {key: value for key, value in saved[1].items() if key != "config"}
    refused(saved, [1], "model.json: a mapping of keys was expected")
    refused(saved, description, "model.json: the key 'config' is missing")


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": None},
        {"input_size": "80"},
        {"input_size": []},
        {"unknown_option": 3},
        {"attention_heads": 0},
        {"activation_type": "no_such"},
    ],
    ids=str,
)
def test_an_option_that_the_encoder_does_not_take_is_a_model_error(saved, change):
    config = {**saved[1]["config"], **change}
    refused(saved, {**saved[1], "config": config}, "can't build the model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kept": ["a", "b"]}, "whole numbers"),
        ({"kept": [0.5]}, "whole numbers"),
        ({"kept": [True]}, "whole numbers"),
        ({"kept": None}, "malformed"),
        ({"units": "16"}, "whole numbers"),
        ({"block": []}, "whole numbers"),
        ({"kept": [1, 0]}, "ascending"),
        ({"kept": [0, 0]}, "ascending"),
        ({"kept": [0, 3], "units": 3}, "ascending indices below 3"),
        ({"kept": [-1, 2], "units": 3}, "ascending indices below 3"),
    ],
    ids=str,
)
def test_a_site_of_the_plan_that_can_not_be_is_named(saved, change, message):
    config = saved[1]["config"]
    plan = config["pruned_arch"]
    sites = {**plan["sites"], "front_end.0": {**plan["sites"]["front_end.0"], **change}}
    config = {**config, "pruned_arch": {**plan, "sites": sites}}
    refused(saved, {**saved[1], "config": config}, f"site 'front_end.0'.*{message}")


@pytest.mark.parametrize("sites", [[], ["front_end.0"], None, {"front_end.0": 3}], ids=str)
def test_a_plan_whose_sites_are_no_mapping_is_named(saved, sites):
    config = saved[1]["config"]
    config = {**config, "pruned_arch": {**config["pruned_arch"], "sites": sites}}
    refused(saved, {**saved[1], "config": config}, "encoder_conf.pruned_arch: site")


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="file: a file; expected the folder"):
        load(tmp_path / "file")
    with pytest.raises(ConfigError, match="file: a file; a model is saved as a folder"):
        save(encoder(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
