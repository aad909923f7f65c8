"""Folders of save_pretrained as teachers: the same letters with the same scores."""

import json

import pytest
import torch
from tiny_ssl import ssl_model

import espnet_prune
from espnet_prune.cli import run
from espnet_prune.errors import DataError, ModelError
from espnet_prune.models.origins import open_origin

VOCABULARY = {
    "E": 0,
    "T": 1,
    "|": 2,
    "<pad>": 3,
    "<unk>": 4,
    **{c: 5 + i for i, c in enumerate("ANOSRHL")},
}
SAMPLES = 3200


@pytest.fixture
def folder(tmp_path, request):
    """A model with CTC, by default a HuBERT, whose blank isn't its first token."""
    name = getattr(request, "param", "hubert")
    model = ssl_model(name, pad_token_id=3)
    model.save_pretrained(tmp_path / name)
    (tmp_path / name / "vocab.json").write_text(json.dumps(VOCABULARY))
    return tmp_path / name


@pytest.mark.parametrize("folder", ["hubert", "wavlm", "conformer"], indirect=True)
@torch.no_grad()
def test_its_letters_and_scores_are_those_of_transformers(folder, tmp_path):
    out = tmp_path / "teacher"
    assert not run(["import_teacher", "--teacher", str(folder), "--out", str(out)])
    tokens = (out / "tokens/tokens.txt").read_text().split()
    assert tokens[:5] == ["<blank>", "E", "T", "<space>", "<unk>"] and tokens[-1] == "<sos/eos>"
    model = espnet_prune.load(out / "model")
    speech = torch.randn(1, SAMPLES, generator=torch.Generator().manual_seed(0))
    encoded, _ = model.encode(speech.clone(), torch.tensor([SAMPLES]))
    standardised = (speech - speech.mean()) / (speech.var(unbiased=False) + 1e-7).sqrt()
    theirs = espnet_prune.load(folder)(standardised).logits
    order = [VOCABULARY["<pad>"], *(i for i in range(len(VOCABULARY)) if i != 3)]
    assert torch.allclose(model.ctc.ctc_lo(encoded)[..., :-1], theirs[..., order], atol=1e-4)
    assert float(model.ctc.log_softmax(encoded)[..., -1].max()) < -30


def test_what_is_missing_or_not_known_is_named(folder, tmp_path):
    def write(name: str, **values) -> None:
        (folder / name).write_text(json.dumps(values))

    def tokens():
        with open_origin(str(folder)) as origin:
            return origin.build(tmp_path)

    write("preprocessor_config.json", do_normalize=False)
    with pytest.raises(ModelError, match="do_normalize: False can't be imported; expected True"):
        tokens()
    write("preprocessor_config.json", do_normalize=True)
    write("vocab.json", A=0, B=1)
    with pytest.raises(ModelError, match="2 tokens aren't those of an output layer of 12 rows"):
        tokens()
    (folder / "vocab.json").unlink()
    with pytest.raises(DataError, match="vocab.json: no such file"):
        tokens()
    config = json.loads((folder / "config.json").read_text())
    write("config.json", **{**config, "adapter_attn_dim": 4})
    with pytest.raises(ModelError, match="adapter_attn_dim: 4 can't be imported.*without"):
        tokens()
    write("config.json", **{**config, "architectures": ["HubertModel"]})
    with pytest.raises(ModelError, match="a HubertModel can't be imported as a teacher; known"):
        tokens()


def test_a_folder_of_nothing_known_is_named_with_what_is(tmp_path):
    with pytest.raises(DataError, match="model.json: no such file.*experiment.*save_pretrained"):
        espnet_prune.load(tmp_path)
