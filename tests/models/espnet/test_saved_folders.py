"""Folders of whole models: files for stock ESPnet, tokens, and configurations that can't be."""

import json
import shutil

import pytest
import torch
from tiny_models import ENCODER, encoder

from espnet_prune.budget import Budget
from espnet_prune.data.tokens import make_tokens
from espnet_prune.errors import DataError, ModelError
from espnet_prune.models.espnet.build import build_asr_model, load_trained
from espnet_prune.models.espnet.features import input_shape
from espnet_prune.models.espnet.folder import write_espnet_folder
from espnet_prune.surgery import load, save, sites_of
from espnet_prune.train.system import write_model


def config(**changes) -> dict:
    values = {
        "token_list": ["<blank>", "<unk>", "a", "b", "<space>", "<sos/eos>"],
        "token_type": "char",
        "frontend_conf": {"n_fft": 512, "hop_length": 160, "n_mels": 20},
        "normalize": "global_mvn",
        "encoder": "conformer",
        "encoder_conf": ENCODER,
        "decoder": None,
        "model_conf": {"ctc_weight": 1.0},
    }
    return {**values, **changes}


@pytest.fixture
def folder(tmp_path):
    """A system's model folder."""
    torch.manual_seed(0)
    write_model(build_asr_model(config()), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def with_bpe(tmp_path):
    """A model whose tokens are pieces, and their file."""
    (tmp_path / "text").write_text("u1 YES NO\nu2 GO STOP\nu3 NO NO YES\n")
    tokens = make_tokens(tmp_path / "text", tmp_path / "tokens", "bpe", 14)
    bpe = tmp_path / "tokens/bpe.model"
    model = build_asr_model(config(token_list=tokens, token_type="bpe", bpemodel=str(bpe)))
    return model.eval(), bpe


def other_weights(folder) -> torch.nn.Module:
    model = load(folder)
    with torch.no_grad():
        model.ctc.ctc_lo.weight.add_(1.0)
    return model


def test_files_for_stock_espnet_go_once_other_weights_are_saved(folder):
    save(load(folder), folder)
    assert (folder / "espnet/model.pth").exists()  # of these very weights
    save(other_weights(folder), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_damaged_files_for_stock_espnet_go_and_what_else_is_there_stays(folder):
    model = load(folder)
    (folder / "espnet/model.pth").write_bytes(b"nothing")
    (folder / "espnet/notes.txt").write_text("mine")
    save(model, folder)
    assert [path.name for path in (folder / "espnet").iterdir()] == ["notes.txt"]


def test_an_encoder_alone_replaces_a_whole_model(folder):
    save(encoder(), folder)
    assert not (folder / "espnet").exists()


def test_a_folder_of_this_name_that_is_not_ours_stays(folder):
    shutil.rmtree(folder / "espnet")
    (folder / "espnet/egs2").mkdir(parents=True)
    (folder / "espnet/config.yaml").write_text("mine")
    save(other_weights(folder), folder)
    assert (folder / "espnet/config.yaml").read_text() == "mine"


def test_both_formats_are_of_the_last_model_written(folder):
    model = other_weights(folder)
    write_model(model, folder)
    stock = load_trained(folder / "espnet/config.yaml", folder / "espnet/model.pth")
    for again in (stock, load(folder)):
        assert torch.equal(again.ctc.ctc_lo.weight, model.ctc.ctc_lo.weight)


def test_a_missing_file_of_tokens_is_named_at_once(with_bpe, tmp_path):
    model, bpe = with_bpe
    folder = save(model, tmp_path / "model")
    assert load(folder).espnet_prune_config["bpemodel"] == str(folder / "bpe.model")
    (folder / "bpe.model").unlink()
    with pytest.raises(DataError, match="model/bpe.model: no such file.*copy it"):
        load(folder)
    bpe.unlink()
    for write in (save, write_espnet_folder):
        with pytest.raises(DataError, match="tokens/bpe.model: no such file"):
            write(model, tmp_path / "new")
    assert not (tmp_path / "new/model.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"frontend_conf": None},
        {"frontend_conf": {"n_mels": "a"}},
        {"normalize_conf": ["a"]},
        {"input_size": "a"},
        {"frontend": "no_such_front_end"},
        {"encoder": 3},
        {"model_conf": {"ctc_weight": "a"}},
    ],
    ids=str,
)
def test_a_configuration_of_other_types_is_a_model_error(folder, change):
    description = json.loads((folder / "model.json").read_text())
    description["config"].update(change)
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match="model.json: ESPnet can't build the model"):
        load(folder)


def test_a_rate_with_its_unit_is_the_rate():
    models = [
        build_asr_model(config(frontend_conf={"fs": rate, "n_mels": 20})) for rate in (8000, "8k")
    ]
    macs = [Budget(sites_of(m), list(sites_of(m).sites), "macs").prunable for m in models]
    assert macs[0] == macs[1]
    assert [input_shape(model, 2.0) for model in models] == [(125, 20)] * 2
