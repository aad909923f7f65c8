"""Wav2Vec2-BERT and Parakeet as teachers: transformers' own scores and texts, cut, exported."""

import json

import numpy
import pytest
import sentencepiece
import tiny_nemo
import torch
from random_structures import random_structure
from tiny_feature_readers import MODELS, SECONDS, write_folder
from tiny_models import AllSites
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode

import espnet_prune
from espnet_prune.cli import run
from espnet_prune.data.alignable import frames_of
from espnet_prune.decode.decode_config import DecodeConfig
from espnet_prune.decode.recogniser import Recogniser
from espnet_prune.errors import DataError, ModelError
from espnet_prune.export.onnx import export_onnx
from espnet_prune.export.recogniser import OnnxRecogniser
from espnet_prune.export.transformers_folder import export_transformers
from espnet_prune.methods import make_method
from espnet_prune.models.espnet.features import least_samples, random_input
from espnet_prune.models.graphs import TOLERANCE
from espnet_prune.models.origins import open_origin
from espnet_prune.sites import KINDS
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.holding import holding

pytestmark = pytest.mark.timeout(300)
NAMES = ("bert", "parakeet")
SAMPLES = (16000, 9123, 12510)  # of Wav2Vec2-BERT, an odd number of frames among them


def recordings() -> list[torch.Tensor]:
    """Noise as loud at low frequencies as speech is, with an offset."""
    generator = torch.Generator().manual_seed(5)
    noise = (torch.randn(samples, generator=generator) for samples in SAMPLES)
    return [0.01 + 0.05 * (each + 0.9 * each.roll(1)) for each in noise]


def tones() -> numpy.ndarray:
    """Tones one after the other in noise, int16, so that a random model says this and that."""
    generator = numpy.random.default_rng(0)
    hertz = numpy.repeat(generator.uniform(100, 6000, 16), 4000)
    clean = 5000 * numpy.sin(2 * numpy.pi * numpy.cumsum(hertz) / 16000)
    return (clean + generator.normal(0, 100, len(clean))).astype("int16")


def imported(folder, tokens) -> torch.nn.Module:
    with open_origin(str(folder)) as origin:
        origin.write_tokens(tokens)
        return origin.build(tokens)


def order(model) -> list[int]:
    """Rows of transformers' output layer as ESPnet has them."""
    blank = len(model.token_list) - 2
    return [blank, *range(blank)]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_scores_in_a_padded_batch_are_those_of_transformers(name, tmp_path):
    theirs, processor = write_folder(tmp_path / "folder", name)
    model = imported(tmp_path / "folder", tmp_path / "tokens")
    speech = recordings()
    own = processor.feature_extractor(
        [each.numpy() for each in speech], sampling_rate=16000, return_tensors="pt"
    )
    expected = theirs(**own).logits
    batch, lengths = pad_sequence(speech, batch_first=True), torch.tensor(SAMPLES)
    encoded, frames = model.encode(batch, lengths)
    found = model.ctc.ctc_lo(encoded)
    assert model.token_list[0] == "<blank>" and model.token_list[-1] == "<sos/eos>"
    assert float(model.ctc.log_softmax(encoded)[..., -1].max()) < -30
    assert [frames_of(model.espnet_prune_config, n) for n in SAMPLES] == frames.tolist()
    for index, number in enumerate(frames.tolist()):
        alone = model.ctc.ctc_lo(model.encode(speech[index][None], lengths[index : index + 1])[0])
        assert alone.shape[1] == number
        reference = expected[index, :number, order(model)]
        assert torch.allclose(found[index, :number, :-1], reference, atol=1e-4)
        assert torch.allclose(alone[0, :, :-1], reference, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_texts_are_those_of_transformers_here_and_by_onnx(name, tmp_path):
    theirs, processor = write_folder(tmp_path / "folder", name)
    teacher = tmp_path / "teacher"
    assert not run(["import_teacher", "--teacher", str(tmp_path / "folder"), "--out", str(teacher)])
    samples = tones()
    own = processor.feature_extractor(
        (samples / 32768).astype("float32"), sampling_rate=16000, return_tensors="pt"
    )
    with torch.no_grad():
        if name == "bert":
            best = theirs(**own).logits.argmax(-1)[0, : int(own.attention_mask.sum())]
        else:
            best = theirs.generate(**own)[0]
    expected = " ".join(processor.decode(best).split())
    assert len(set(expected)) > 3
    decode = DecodeConfig(modes=("greedy",))
    assert Recogniser(teacher / "model", decode).transcribe(samples, "greedy") == expected
    model = espnet_prune.load(teacher / "model")
    assert max(export_onnx(model, tmp_path / "onnx").values()) < TOLERANCE
    recogniser = OnnxRecogniser(tmp_path / "onnx")
    assert recogniser.transcribe(samples) == expected
    shortest = recogniser.about["least_samples"]
    assert recogniser.log_probs(numpy.ones(shortest, "float32")).shape == (1, len(model.token_list))
    assert not recogniser.transcribe(samples[: shortest - 1])


@pytest.mark.parametrize("name", NAMES)
def test_pruned_it_is_transformers_own_class_again_with_its_own_tokenizer(name, tmp_path):
    import transformers

    theirs, processor = write_folder(tmp_path / "folder", name)
    model = imported(tmp_path / "folder", tmp_path / "tokens")
    gated = inject(model, All(("head", "feed_forward_unit"), learned=False)).eval()
    small = cut(gated, random_structure(gated, 2))
    export_transformers(small, tmp_path / "out", str(tmp_path / "folder"))
    kind = transformers.AutoModelForCTC
    read = kind.from_pretrained(tmp_path / "out", trust_remote_code=True).eval()
    assert read.config.pad_token_id == theirs.config.pad_token_id
    beside = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    assert beside.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    speech = torch.from_numpy(tones()[:32000] / 32768).float()
    given = beside.feature_extractor(speech.numpy(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        encoded, _ = small.encode(speech[None], torch.tensor([len(speech)]))
        expected = small.ctc.ctc_lo(encoded)[..., :-1]
        found = read(**given).logits[:, : expected.shape[1]]
    torch.testing.assert_close(found[..., order(model)], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match="is a token of only one of them; give the folder"):
        other = {"bert": "parakeet", "parakeet": "bert"}[name]
        write_folder(tmp_path / "other", other)
        export_transformers(small, tmp_path / "out", str(tmp_path / "other"))


class All(AllSites):
    reference_seconds = SECONDS


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_random_structures_are_what_they_say_as_encoders_too(name, tmp_path):
    write_folder(tmp_path / "folder", name)
    model = imported(tmp_path / "folder", tmp_path / "tokens")
    model.encoder.model.config._attn_implementation = "eager"  # whose products are counted
    gated = inject(model, All(KINDS, learned=False)).eval()
    frames, bins = round(SECONDS * MODELS[name][2]), MODELS[name][3]
    for seed in range(6):
        masks = random_structure(gated, seed)
        small = cut(gated, masks)
        feats, lengths = random_input(small, SECONDS)
        with holding(gated, masks):
            masked, times, _ = gated.model.encoder(feats, lengths)
        found, _, _ = small.encoder(feats, lengths)
        within = torch.arange(masked.shape[1]) < times[:, None]
        assert float((masked - found)[within].abs().max()) < 1e-5 * max(1.0, masked.abs().max())
        for measure in ("parameters", "macs"):
            budget = espnet_prune.budget.Budget(gated.site_map, gated.gate_names(), measure)
            kept = budget.total - budget.prunable + budget.hard(masks)
            if measure == "parameters":
                assert sum(p.numel() for p in small.encoder.parameters()) == kept
                continue
            with FlopCounterMode(display=False) as counter:
                small.encoder(torch.zeros(1, frames, bins), torch.tensor([frames]))
            assert counter.get_total_flops() // 2 == kept
    loaded = espnet_prune.load(espnet_prune.save(small, tmp_path / "small"))
    assert torch.allclose(loaded.encoder(feats, lengths)[0], found, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_one_is_exported_with_its_features(name, tmp_path):
    write_folder(tmp_path / "folder", name)
    method = make_method("uniform_magnitude", target=0.5)
    gated = inject(imported(tmp_path / "folder", tmp_path / "tokens"), method).eval()
    differences = export_onnx(cut(gated, method.masks(gated)), tmp_path / "onnx")
    assert len(differences) == 4 and max(differences.values()) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_teaches_and_the_shortest_recording_is_encoded(name, tmp_path):
    hides = {"mask_time_prob": 0.5} if name == "bert" else {}
    write_folder(tmp_path / "folder", name, **hides)
    model = imported(tmp_path / "folder", tmp_path / "tokens")
    (last, hidden), _, _ = model.encoder(*random_input(model, SECONDS), return_all_hs=True)
    assert len(hidden) == len(model.encoder.encoders) == 2
    assert torch.equal(hidden[-1], last)
    least = least_samples(model)
    speech = torch.randn(2, least, generator=torch.Generator().manual_seed(0))
    encoded, frames = model.train().encode(speech, torch.tensor([least, least]))
    assert frames.tolist() == [1, 1] and bool(encoded.isfinite().all())


def test_pieces_are_made_as_transformers_makes_them(tmp_path):
    _, processor = write_folder(tmp_path / "folder", "parakeet")
    with open_origin(str(tmp_path / "folder")) as origin:
        tokens = origin.write_tokens(tmp_path / "tokens")
    made = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokens/bpe.model"))
    assert tokens[1:-1] == [made.id_to_piece(i) for i in range(made.get_piece_size())]
    for text in (*tiny_nemo.TEXTS, "tea  see mat", "what's that", "nonetheless"):
        expected = processor.tokenizer.convert_ids_to_tokens(processor.tokenizer(text).input_ids)
        found = made.id_to_piece(made.encode(text))
        assert found == expected


def changed(folder, file: str, change) -> None:
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))


@pytest.mark.parametrize(
    "name, file, change, message",
    [
        (
            "bert",
            "processor_config.json",
            lambda own: own["feature_extractor"].update(stride=1),
            "processor_config.json: stride: 1 can't be imported; expected 2",
        ),
        (
            "bert",
            "processor_config.json",
            lambda own: own["feature_extractor"].update(num_mel_bins=40),
            "num_mel_bins: 40; expected 10, because the model reads 20 values",
        ),
        (
            "bert",
            "config.json",
            lambda own: own.update(add_adapter=True),
            "add_adapter: True can't be imported",
        ),
        (
            "parakeet",
            "processor_config.json",
            lambda own: own["feature_extractor"].update(feature_extractor_type="Other"),
            "feature_extractor_type: Other can't be imported; expected ParakeetFeatureExtractor",
        ),
        (
            "parakeet",
            "tokenizer.json",
            lambda own: own["model"].update(type="WordPiece"),
            "tokenizer.json: model: type: 'WordPiece' can't be imported; expected 'BPE'",
        ),
        (
            "parakeet",
            "tokenizer.json",
            lambda own: own["model"]["merges"].append(own["model"]["merges"][0]),
            "merges: those that make '.*' aren't next to each other",
        ),
        (
            "parakeet",
            "tokenizer.json",
            lambda own: own["added_tokens"].pop(),
            "its 30 tokens aren't those of an output layer of 31 rows with the blank at 30",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(name, file, change, message, tmp_path):
    write_folder(tmp_path / "folder", name)
    changed(tmp_path / "folder", file, change)
    with pytest.raises(ModelError, match=message):
        imported(tmp_path / "folder", tmp_path / "tokens")


def test_a_damaged_file_is_named(tmp_path):
    folder, tokenizer = tmp_path / "folder", "tokenizer.json: can't be read as a tokenizer"
    write_folder(folder, "parakeet")
    mapping = "json: a mapping of keys was expected, not a list; copy"
    for file, damage, error, message in (
        ("tokenizer.json", lambda own: [], ModelError, tokenizer),
        ("tokenizer.json", lambda own: {**own, "added_tokens": [{}]}, ModelError, tokenizer),
        ("tokenizer_config.json", lambda own: [], DataError, f"tokenizer_config.{mapping}"),
        ("processor_config.json", lambda own: [], DataError, f"processor_config.{mapping}"),
        (
            "processor_config.json",
            lambda own: {"feature_extractor": []},
            DataError,
            f"processor_config.{mapping}",
        ),
    ):
        whole = (folder / file).read_text()
        (folder / file).write_text(json.dumps(damage(json.loads(whole))))
        with pytest.raises(error, match=message), open_origin(str(folder)) as origin:
            origin.build(tmp_path / "tokens")
        (folder / file).write_text(whole)


@pytest.mark.parametrize("name, file", [("bert", "vocab.json"), ("parakeet", "tokenizer.json")])
def test_a_missing_file_is_named(name, file, tmp_path):
    write_folder(tmp_path / "folder", name)
    for missing in (file, "processor_config.json"):
        (tmp_path / "folder" / missing).unlink()
        with pytest.raises(DataError, match=f"{missing.partition('_')[2] or missing}.*copy it"):
            with open_origin(str(tmp_path / "folder")) as origin:
                origin.build(tmp_path / "tokens")
