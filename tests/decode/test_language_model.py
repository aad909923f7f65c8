"""Joint search with a language model that ESPnet built: it is read whole, and it decides."""

import numpy
import pytest
import torch
import yaml

from espnet_prune.decode.recogniser import DecodeConfig, open_recogniser
from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.folder import read_espnet_config

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
LM = {
    "lm": "transformer",
    "lm_conf": {"embed_unit": 8, "att_unit": 8, "head": 2, "unit": 16, "layer": 1},
    "model": "lm",
    "model_conf": {},
    "init": None,
}
SPEECH = numpy.random.default_rng(0).normal(0, 3000, 16000).astype(numpy.int16)


def write_lm(folder, tokens: list[str], favourite: int) -> None:
    """A language model that ESPnet builds, which likes one token best, always."""
    import argparse

    from espnet2.tasks.lm import LMTask

    folder.mkdir()
    defaults, _ = LMTask.get_parser().parse_known_args([])
    config = {**vars(defaults), **LM, "token_list": tokens}
    model = LMTask.build_model(argparse.Namespace(**config))
    torch.nn.init.zeros_(model.lm.decoder.weight)
    torch.nn.init.zeros_(model.lm.decoder.bias)
    model.lm.decoder.bias.data[favourite] = 20.0
    torch.save(model.state_dict(), folder / "valid.loss.ave.pth")
    (folder / "config.yaml").write_text(yaml.safe_dump({**LM, "token_list": tokens}))


def test_it_decides_by_its_weight_and_every_weight_is_demanded(system, tmp_path):
    config = read_espnet_config(system / "model/espnet/config.yaml")
    tokens = config["token_list"]
    favourite = next(i for i, token in enumerate(tokens) if i > 1 and token.strip("▁"))
    write_lm(tmp_path / "lm", tokens, favourite)
    options = {"beam_size": 3, "maxlenratio": 0.2, "ctc_weight": 0.0}

    def text(**more) -> str:
        recogniser = open_recogniser(system / "model", DecodeConfig(**options, **more))
        return recogniser.transcribe(SPEECH, "joint")

    alone = text()
    assert text(lm=str(tmp_path / "lm"), lm_weight=0.0) == alone
    ruled = text(lm=str(tmp_path / "lm"), lm_weight=50.0)
    assert ruled and ruled != alone
    assert set(ruled.replace(" ", "")) == set(tokens[favourite].replace("▁", ""))
    state = torch.load(tmp_path / "lm/valid.loss.ave.pth", weights_only=True)
    state.pop("lm.decoder.bias")
    torch.save(state, tmp_path / "lm/valid.loss.ave.pth")
    with pytest.raises(ModelError, match="missing: decoder.bias"):
        text(lm=str(tmp_path / "lm"))


def test_other_tokens_are_named(system, tmp_path):
    write_lm(tmp_path / "lm", ["<blank>", "<unk>", "A", "<sos/eos>"], 2)
    with pytest.raises(ModelError, match="its 4 tokens aren't the .* of the recogniser"):
        open_recogniser(system / "model", DecodeConfig(lm=str(tmp_path / "lm")))
