"""Folders for transformers: the same outputs where ``espnet_prune`` can't be imported."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import tiny_feature_readers
import tiny_models
import tiny_ssl
import tiny_whisper
import torch
from random_structures import random_structure

from espnet_prune.cli import main
from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.export.transformers_folder import CODE, export_transformers
from espnet_prune.models.huggingface.build import from_config
from espnet_prune.surgery import cut, inject, save

WORDS = [3, 1, 0, 3, 3, 2, 4]  # rows of tiny_ssl.LETTERS, by frame
STRANGER = """
import json, sys
sys.modules["espnet_prune"] = None  # where it is imported, this ends
import torch, transformers
for folder, auto in json.load(open(sys.argv[1])).items():
    kind = getattr(transformers, auto)
    model = kind.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    given = torch.load(f"{folder}/given.pt")
    with torch.no_grad():
        made = model(**given)
    found = {"outputs": made["logits"] if "logits" in made else made[0]}
    if hasattr(model, "generate") and "input_features" in given and auto.endswith("Seq2Seq"):
        found["tokens"] = model.generate(given["input_features"], max_new_tokens=8)
    torch.save(found, f"{folder}/made.pt")
"""


class Whole(tiny_models.AllSites):
    reference_seconds = 2.0


def pruned(model, seed: int = 3, method=None, front=torch.ones) -> torch.nn.Module:
    """A model cut to a random structure behind its front-end: branches, units and blocks go.

    ``front`` makes the mask of the front-end's channels of their number.
    """
    kinds = tuple(kind for kind in tiny_ssl.EVERY_KIND if kind != "front_end_channel")
    gated = inject(model, method or tiny_ssl.Ssl(kinds, learned=False)).eval()
    structure = random_structure(gated, seed)
    for name, site in gated.site_map.sites.items():
        if site.kind == "front_end_channel":
            structure[name] = front(site.units)
    return cut(gated, structure)


def from_a_strangers_python(folders: dict, tmp_path) -> dict:
    """What other programs make of the folders, by name."""
    for folder, given, _ in folders.values():
        torch.save(given, folder / "given.pt")
    listed = {str(folder): auto for folder, _, auto in folders.values()}
    (tmp_path / "folders.json").write_text(json.dumps(listed))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(tmp_path / "folders.json")],
        cwd=tmp_path,
        env={**clean, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: torch.load(folder / "made.pt") for name, (folder, *_) in folders.items()}


def front_channels(site) -> torch.Tensor:
    """Some of the feature extractor's channels and of a block's units."""
    return (torch.arange(site.units) % 3 > 0).float() if site.units > 1 else torch.ones(1)


@pytest.mark.timeout(300)
def test_others_run_it_without_this_project(tmp_path):
    speech = {k: v for k, v in tiny_ssl.batch().items() if k != "labels"}
    models = {name: pruned(tiny_ssl.ssl_model(name)) for name in ("wav2vec2", "hubert_stable")}
    models["front"] = cut(tiny_ssl.gated_with("hubert", front_channels, tiny_ssl.EVERY_KIND))
    models["conformer"] = pruned(tiny_ssl.ssl_model("conformer"), 4)
    models["headless"] = pruned(tiny_ssl.ssl_model("wav2vec2").wav2vec2)
    models["whisper"] = pruned(tiny_whisper.whisper(), 5, Whole(learned=False))
    shallow = (tiny_whisper.whisper(), 9, Whole(learned=False))  # a block of each stack is gone
    models["shallow_whisper"] = pruned(*shallow, lambda n: (torch.arange(n) % 3 > 0).float())
    readers = {name: tiny_feature_readers.model_of(name) for name in ("bert", "parakeet")}
    models |= {name: pruned(model, 6) for name, model in readers.items()}
    windows = {**tiny_whisper.batch()}
    windows["decoder_input_ids"] = windows.pop("labels").clamp_min(0)
    folders, expected = {}, {}
    for name, model in models.items():
        given = windows if "whisper" in name else speech
        if name in readers:
            bins = tiny_feature_readers.MODELS[name][3]
            feats = torch.randn(2, 90, bins, generator=torch.Generator().manual_seed(2))
            given = {"input_features": feats}
        about = export_transformers(model, tmp_path / name)
        assert about["needs_code"] and (tmp_path / name / CODE.name).is_file()
        folders[name] = (tmp_path / name, given, about["auto_class"])
        with torch.no_grad():
            made = model(**given)
        expected[name] = {"outputs": made["logits"] if "logits" in made else made[0]}
        if "whisper" in name:
            tokens = model.generate(given["input_features"], max_new_tokens=8)
            expected[name]["tokens"] = tokens
    for name, found in from_a_strangers_python(folders, tmp_path).items():
        assert found.keys() == expected[name].keys()
        for key, value in found.items():
            torch.testing.assert_close(value, expected[name][key], atol=1e-5, rtol=1e-5)


def test_what_fits_the_stock_class_needs_no_code(tmp_path):
    import transformers

    gated = tiny_ssl.gated_with(
        "wav2vec2", lambda site: torch.ones(site.units), tiny_ssl.EVERY_KIND
    )
    gated.gate("block.0").set(torch.zeros(1))
    fewer = (torch.arange(24) < 18).float()
    gated.gate("block.1.feed_forward.units").set(fewer)
    small = cut(gated)
    about = export_transformers(small, tmp_path / "small")
    assert (about["class"], about["needs_code"]) == ("Wav2Vec2ForCTC", False)
    assert not (tmp_path / "small" / CODE.name).exists()
    read = transformers.AutoModelForCTC.from_pretrained(tmp_path / "small").eval()
    assert (read.config.num_hidden_layers, read.config.intermediate_size) == (1, 18)
    torch.testing.assert_close(tiny_ssl.logits(read), tiny_ssl.logits(small))
    matrices = inject(tiny_ssl.ssl_model("hubert"), tiny_ssl.Ssl(("weight",), learned=False)).eval()
    for name, site in matrices.site_map.sites.items():
        matrices.gate(name).set((torch.arange(site.units) % 2).float())
    assert not export_transformers(cut(matrices), tmp_path / "zeros")["needs_code"]


def pruned_letters_model():
    """An ESPnet model of letters, and its ``encoder: ssl``, cut."""
    model = tiny_ssl.letters_model({"model": {**tiny_ssl.TRANSFORMER, "layerdrop": 0.0}})
    gated = inject(model, tiny_ssl.Ssl(learned=False)).eval()
    return cut(gated, random_structure(gated, 5))


def test_an_espnet_model_becomes_the_class_with_ctc_and_its_letters(tmp_path, capsys):
    import transformers

    model = pruned_letters_model()
    save(model, tmp_path / "model")
    out = tmp_path / "out"
    assert not main(["export_transformers", "--model", str(tmp_path / "model"), "--out", str(out)])
    assert "trust_remote_code=True" in capsys.readouterr().out
    audio = torch.randn(3200, generator=torch.Generator().manual_seed(1))
    processor = transformers.AutoProcessor.from_pretrained(out)
    given = processor(audio.numpy(), sampling_rate=16000, return_tensors="pt")
    read = transformers.AutoModelForCTC.from_pretrained(out, trust_remote_code=True).eval()
    with torch.no_grad():
        encoded, _ = model.encode(audio[None], torch.tensor([len(audio)]))
        torch.testing.assert_close(
            read(**given).logits.log_softmax(-1), model.ctc.log_softmax(encoded), atol=1e-4, rtol=0
        )
    assert processor.decode(WORDS) == "A<unk>A B"


def test_a_processor_is_taken_from_where_it_is(tmp_path):
    import transformers

    extractor = transformers.Wav2Vec2FeatureExtractor()
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path / "theirs")
    model = tiny_ssl.ssl_model("wav2vec2")
    about = export_transformers(model, tmp_path / "out", str(tmp_path / "theirs"))
    assert about["processor"] and not about["needs_code"]
    assert transformers.AutoProcessor.from_pretrained(tmp_path / "out").decode([3]) == "a"
    (nowhere := tmp_path / "nowhere").mkdir()
    with pytest.raises(ModelError, match="nowhere: no feature extractor and tokenizer"):
        export_transformers(model, tmp_path / "out", str(nowhere))
    assert transformers.AutoProcessor.from_pretrained(tmp_path / "out").decode([3]) == "a"


@pytest.mark.parametrize(
    ("numbers", "extractor", "message"),
    [
        ((0, 1, 2, 4, 5), {}, r"has 'A' at 4, but 3 was expected"),
        ((0, 1, 2, 3, 4), {}, None),
        ((0, 1, 2, 3, 4), {"do_normalize": False}, "the scores of speech differ by"),
        ((0, 1, 2, 3, 4), {"sampling_rate": 8000}, "its feature extractor isn't that of the model"),
    ],
)
def test_a_processor_that_hears_or_counts_otherwise_is_refused(
    numbers, extractor, message, tmp_path
):
    import transformers

    vocabulary = dict(zip(("<pad>", "<unk>", "|", "A", "B"), numbers, strict=True))
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(**extractor),
        transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")),
    ).save_pretrained(tmp_path / "theirs")
    shifted = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}  # feels the mean
    model = tiny_ssl.letters_model({"model": {**tiny_ssl.TRANSFORMER, **shifted}})
    refused = pytest.raises(ModelError, match=message) if message else nullcontext()
    with refused:
        export_transformers(model, tmp_path / "out", str(tmp_path / "theirs"))
    assert (tmp_path / "out").exists() == (message is None)


def test_a_processor_without_a_tokenizer_says_nothing_of_the_order_of_tokens(tmp_path):
    import transformers

    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "theirs")
    with pytest.raises(ModelError, match="a Wav2Vec2FeatureExtractor alone is there"):
        export_transformers(pruned_letters_model(), tmp_path / "out", str(tmp_path / "theirs"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
def test_another_precision_is_refused_with_the_remedy(precision, tmp_path):
    with pytest.raises(ModelError, match=r"torch\.\w*float16.*call model\.float\(\)"):
        export_transformers(tiny_ssl.ssl_model("wav2vec2").to(precision), tmp_path / "out")


def test_what_was_put_beside_an_earlier_export_is_not_removed(tmp_path):
    model = tiny_ssl.ssl_model("wav2vec2")
    for _ in range(2):  # an export by itself is replaced
        export_transformers(model, tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"other files than an export \(README\.md\)"):
        export_transformers(model, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "mine"


def test_what_cannot_be_carried_is_named_and_nothing_is_written(tmp_path):
    wavlm = tiny_ssl.gated_with("wavlm", front_channels, ("head",))
    with pytest.raises(ModelError, match=r"attention: a NumberedWavLMAttention, for which"):
        export_transformers(cut(wavlm), tmp_path / "out")
    with pytest.raises(ModelError, match="ConformerEncoder: it has no model of transformers in"):
        export_transformers(tiny_models.encoder(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    whisper = from_config("WhisperForConditionalGeneration", tiny_whisper.SIZES)
    with pytest.raises(ConfigError, match="holds other files than an export"):
        export_transformers(whisper, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
