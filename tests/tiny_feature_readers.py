"""Tiny Wav2Vec2-BERT and Parakeet models with random weights, and folders of save_pretrained."""

import json
from pathlib import Path

import tiny_models
import tiny_nemo
import torch

SECONDS = 0.8
SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "layerdrop": 0.0,
    "attn_implementation": "eager",
}
BERT = {"feature_projection_input_dim": 20, "conv_depthwise_kernel_size": 5}
ENCODER = {
    **SIZES,
    "num_key_value_heads": 4,
    "num_mel_bins": 16,
    "subsampling_conv_channels": 6,
    "conv_kernel_size": 5,
}
# what makes a model: its class, options, frames a second and bins of its features
MODELS = {
    "bert": ("Wav2Vec2BertForCTC", {}, 50, 20),
    "bert_relative": ("Wav2Vec2BertForCTC", {"position_embeddings_type": "relative"}, 50, 20),
    "parakeet": ("ParakeetForCTC", {}, 100, 16),
    "parakeet_biased": ("ParakeetForCTC", {"attention_bias": True}, 100, 16),
}


def configured(name: str, vocab_size: int = 12, pad_token_id: int = 0, **options):
    """The class of a tiny model with CTC, and its configuration."""
    import transformers

    kind, own, *_ = MODELS[name]
    options = {**own, **options}
    if kind == "ParakeetForCTC":
        encoder = transformers.ParakeetEncoderConfig(**{**ENCODER, **options})
        config = transformers.ParakeetCTCConfig(
            encoder_config=encoder,
            vocab_size=vocab_size,
            pad_token_id=pad_token_id,
            attn_implementation="eager",
        )
    else:
        config = transformers.Wav2Vec2BertConfig(
            **{**SIZES, **BERT, **options}, vocab_size=vocab_size, pad_token_id=pad_token_id
        )
    return getattr(transformers, kind), config


def model_of(name: str, **options) -> torch.nn.Module:
    """A tiny model with CTC, whose weights are such that positions and heads are felt."""
    kind, config = configured(name, **options)
    torch.manual_seed(0)
    model = tiny_models.randomise(kind(config)).eval()
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(parameter, 0.0, 0.3 if parameter.dim() == 2 else 0.5)
    return model


def core_of(model) -> torch.nn.Module:
    return model.encoder if hasattr(model, "ctc_head") else model.wav2vec2_bert


LETTERS = ("<unk>", "|", *"ENOSTGPY", "<pad>")  # the blank is last
NEVER = -50.0


def write_folder(folder: Path, name: str, **options):
    """A model that never says ``<unk>`` with its feature extractor and tokenizer.

    Returns:
        The model and its processor.
    """
    import transformers

    bert = MODELS[name][0] == "Wav2Vec2BertForCTC"
    blank = len(LETTERS) - 1 if bert else tiny_nemo.PIECES
    model = model_of(name, vocab_size=blank + 1, pad_token_id=blank, **options)
    head = model.lm_head if bert else model.ctc_head
    feats = torch.randn(1, 400, MODELS[name][3], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # no token is always the best
        head.bias -= model(feats).logits.mean((0, 1))
        head.bias[0] = NEVER
    model.save_pretrained(folder)
    if bert:
        (folder / "letters.json").write_text(json.dumps({c: i for i, c in enumerate(LETTERS)}))
        tokenizer = transformers.Wav2Vec2CTCTokenizer(
            str(folder / "letters.json"), bos_token=None, eos_token=None
        )
        extractor = transformers.SeamlessM4TFeatureExtractor(num_mel_bins=MODELS[name][3] // 2)
        processor = transformers.Wav2Vec2BertProcessor(extractor, tokenizer)
    else:
        extractor = transformers.ParakeetFeatureExtractor(feature_size=MODELS[name][3])
        processor = transformers.ParakeetProcessor(extractor, _pieces(folder / "spm.model"))
    processor.save_pretrained(folder)
    return model, processor


def _pieces(file: Path):
    """The tokenizer that transformers makes of a sentencepiece model, and ``<pad>`` behind it."""
    import transformers
    from tokenizers import AddedToken
    from transformers.convert_slow_tokenizer import ParakeetConverter

    file.write_bytes(tiny_nemo.tokenizer())
    tokenizer = transformers.ParakeetTokenizer(
        tokenizer_object=ParakeetConverter(str(file)).converted()
    )
    special = {
        f"{name}_token": AddedToken(f"<{name}>", normalized=False, special=True)
        for name in ("pad", "unk")
    }
    tokenizer.add_special_tokens(special)
    return tokenizer
