"""What stock ESPnet trained, alone, is imported, pruned and exported without training it anew."""

import contextlib
import shutil
import zipfile

import mini_recipe
import pytest
import stock_espnet
import torch
import yaml

import espnet_prune
from espnet_prune.cli import run
from espnet_prune.errors import DataError, EnvironmentProblem, ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.models.espnet.trained import find
from espnet_prune.models.origins import open_origin

pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
UTTERANCE = {"normalize_conf": {"norm_vars": True}}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, repository):
    """A recipe's folder in which ESPnet alone has trained, on unigram tokens."""
    folder = tmp_path_factory.mktemp("stock")
    mini_recipe.write_recipe(folder, repository)
    shutil.rmtree(folder / "data")
    stock_espnet.train(folder, "bpe", "global_mvn")
    return folder


@pytest.fixture(scope="module")
def archive(recipe, tmp_path_factory):
    """The same as a zip of ESPnet's model zoo, by ESPnet's own packing."""
    from espnet2.main_funcs.pack_funcs import pack

    out = tmp_path_factory.mktemp("zip") / "model.zip"
    experiment = stock_espnet.EXPERIMENT
    with contextlib.chdir(recipe):
        pack(
            files={"asr_model_file": f"{experiment}/valid.acc.ave_1best.pth"},
            yaml_files={"asr_train_config": f"{experiment}/config.yaml"},
            option=["data/token_list/bpe_unigram20/bpe.model"],
            outpath=str(out),
        )
    return out


@torch.no_grad()
def encoded(model, speech) -> torch.Tensor:
    found, _ = model.eval().encode(torch.tensor(speech)[None], torch.tensor([len(speech)]))
    return found


def stock_encoded(recipe) -> torch.Tensor:
    """What ESPnet's own loader makes of the model, where it was trained."""
    from espnet2.tasks.asr import ASRTask

    with contextlib.chdir(recipe):
        model, _ = ASRTask.build_model_from_file(
            f"{stock_espnet.EXPERIMENT}/config.yaml",
            f"{stock_espnet.EXPERIMENT}/valid.acc.ave.pth",
        )
    return encoded(model, stock_espnet.samples(recipe))


def test_an_experiment_s_folder_is_loaded_from_anywhere(recipe):
    model = espnet_prune.load(recipe / stock_espnet.EXPERIMENT)
    assert torch.equal(encoded(model, stock_espnet.samples(recipe)), stock_encoded(recipe))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_pruned_from_there_without_training_it_anew(packed, recipe, archive, tmp_path, repository):
    source = archive if packed else recipe / stock_espnet.EXPERIMENT
    mini_recipe.write_recipe(tmp_path, repository)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "conf/teacher.yaml").unlink()
    for name in ("prune", "finetune"):
        path = tmp_path / f"conf/{name}.yaml"
        short = {"num_iters_per_epoch": 2, "max_epoch": 1, "use_amp": False}
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **short}))
    systems = {"l0": {"method": "l0_distill", "target": 0.4, "seed": 3}}
    (tmp_path / "conf/systems.yaml").write_text(yaml.safe_dump({"systems": systems}))
    teacher = ["--teacher", str(source)]
    with contextlib.chdir(tmp_path):
        assert not run(
            ["make_tokens", *teacher, "--text", "dump/train/text", "--out", "data/tokens"]
        )
        assert not run(["collect_stats", *teacher, *mini_recipe.DATA, "--out", "exp/stats"])
        assert not run(
            ["import_teacher", *teacher, "--tokens", "data/tokens", "--out", "exp/teacher"]
        )
    dense = espnet_prune.load(tmp_path / "exp/teacher/model")
    assert torch.equal(encoded(dense, stock_espnet.samples(recipe)), stock_encoded(recipe))
    for main in ("prune", "cut", "finetune"):
        mini_recipe.run_here(tmp_path, main)
    small = espnet_prune.load(tmp_path / "exp/l0/model")
    numbers = [sum(p.numel() for p in m.encoder.parameters()) for m in (small, dense)]
    assert 0.3 < numbers[0] / numbers[1] < 0.8


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [("char", "conformer"), pytest.param("word", "transformer", marks=pytest.mark.slow)],
)
def test_tokens_and_norms_of_other_kinds(kind, encoder, tmp_path, repository):
    conf = {"output_size": 16, "attention_heads": 2, "linear_units": 24, "num_blocks": 1}
    mini_recipe.write_recipe(tmp_path, repository)
    shutil.rmtree(tmp_path / "data")
    experiment = stock_espnet.train(
        tmp_path, kind, "utterance_mvn", encoder=encoder, encoder_conf=conf, **UTTERANCE
    )
    assert not run(["import_teacher", "--teacher", str(experiment), "--out", f"{tmp_path}/teacher"])
    model = espnet_prune.load(tmp_path / "teacher/model")
    speech = stock_espnet.samples(tmp_path)
    assert torch.equal(encoded(model, speech), stock_encoded(tmp_path))
    tokens = (tmp_path / "teacher/tokens/tokens.txt").read_text().split()
    assert tokens == model.token_list
    torch.nn.init.normal_(model.ctc.ctc_lo.weight, 0.0, 3.0)
    assert max(export_onnx(model, tmp_path / "onnx").values()) < 1e-4


def test_a_model_that_espnet_prune_saved_is_a_teacher_too(recipe, tmp_path):
    model = espnet_prune.load(recipe / stock_espnet.EXPERIMENT)
    espnet_prune.save(model, tmp_path / "saved")
    out = tmp_path / "teacher"
    assert not run(["import_teacher", "--teacher", str(tmp_path / "saved"), "--out", str(out)])
    again = espnet_prune.load(out / "model")
    speech = stock_espnet.samples(recipe)
    assert torch.equal(encoded(again, speech), encoded(model, speech))


@pytest.fixture
def experiment(recipe, tmp_path):
    """A copy of the experiment, with the files that its configuration names above it."""
    shutil.copytree(recipe, tmp_path / "copy")
    return tmp_path / "copy" / stock_espnet.EXPERIMENT


def changed(experiment, **values):
    """The experiment with other values in its configuration."""
    path = experiment / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))
    return str(experiment)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder": "vgg_rnn"}, "encoder: vgg_rnn can't be pruned; known are .*models/"),
        ({"encoder_conf": {"input_layer": "embed"}}, "input_layer: 'embed' can't be pruned; known"),
        ({"frontend": "s3prl"}, "frontend: s3prl can't be joined with pruning; known are default"),
        ({"preencoder": "sinc"}, "preencoder: sinc"),
        ({"decoder": "mlm"}, "decoder: mlm can't be joined"),
        (
            {"decoder": "transducer", "model_conf": {"transducer_multi_blank_durations": [2]}},
            "transducer_multi_blank_durations: .*several blanks",
        ),
        ({"decoder": "transducer", "token_list": ["A", "<blank>"]}, "isn't its first token"),
        ({"token_type": "phn"}, "token_type: phn can't be imported; known are bpe, char, word"),
        ({"cleaner": "tacotron"}, "cleaner: tacotron.*do it in the data"),
        ({"bpemodel": None}, "names no bpemodel"),
        ({"token_list": ["<blank>", "A", "<sos/eos>"]}, "bpe.model: .*aren't among the tokens"),
    ],
)
def test_what_is_not_known_is_named_before_weights_are_read(experiment, values, message):
    for path in experiment.glob("*.pth"):
        path.write_bytes(b"never read")
    with pytest.raises(ModelError, match=message):
        espnet_prune.load(changed(experiment, **values))


def test_every_weight_is_demanded_and_no_other(experiment):
    state = torch.load(experiment / "valid.acc.ave_1best.pth", weights_only=True)
    one = state.pop("encoder.after_norm.weight")
    torch.save(state, experiment / "less.pth")
    with pytest.raises(ModelError, match="less.pth: .*missing: encoder.after_norm.weight"):
        espnet_prune.load(experiment / "less.pth")
    torch.save({**state, "encoder.after_norm.weight": one, "lora": one}, experiment / "more.pth")
    with pytest.raises(ModelError, match="more.pth: .*unexpected: lora"):
        espnet_prune.load(experiment / "more.pth")


def test_files_of_tokens_that_are_gone_are_named_with_the_place_for_them(experiment):
    model = experiment.parents[1] / "data/token_list/bpe_unigram20/bpe.model"
    model.rename(experiment.parents[1] / "kept.model")
    with pytest.raises(DataError, match=r"bpemodel: data/token_list/.*copy it to .*/bpe.model"):
        espnet_prune.load(experiment)
    shutil.copyfile(experiment.parents[1] / "kept.model", experiment / "bpe.model")
    espnet_prune.load(experiment)


def test_weights_that_might_be_meant_are_listed(experiment):
    for path in experiment.glob("valid.acc.*"):
        path.unlink()
    shutil.copyfile(experiment / "1epoch.pth", experiment / "2epoch.pth")
    with pytest.raises(DataError, match="valid.acc were expected.*1epoch.pth, 2epoch.pth"):
        espnet_prune.load(experiment)
    assert find(experiment / "2epoch.pth", "it").weights.name == "2epoch.pth"


def test_no_zip_no_meta_no_file_no_network(tmp_path, monkeypatch):
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as z:
        z.writestr("model.json", "{}")
    with zipfile.ZipFile(tmp_path / "tts.zip", "w") as z:
        z.writestr("meta.yaml", "files: {tts_model_file: a.pth}")
    for name, message in (
        ("broken.zip", "can't be read as a .zip"),
        ("other.zip", "holds no meta.yaml"),
        ("tts.zip", "names tts_model_file; expected asr_train_config and asr_model_file"),
    ):
        with pytest.raises(ModelError, match=message), open_origin(str(tmp_path / name)):
            pass
    with pytest.raises(DataError, match="none.zip"), open_origin(str(tmp_path / "none.zip")):
        pass
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="espnet/tiny: there is no such folder"):
        with open_origin("espnet/tiny"):
            pass
