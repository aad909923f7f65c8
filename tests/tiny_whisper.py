"""A tiny Whisper with random weights, for several tests."""

import torch
from tiny_models import AllSites, randomise
from torch.utils.flop_counter import FlopCounterMode

from espnet_prune.budget import Budget
from espnet_prune.models.huggingface.build import from_config
from espnet_prune.models.whisper.sites import TOKENS_PER_SECOND
from espnet_prune.surgery import cut

POSITIONS = 100  # of the encoder: windows of 2 s
SECONDS = 2.0  # a window
NUMBER = round(TOKENS_PER_SECOND * SECONDS)
SIZES = {
    "vocab_size": 40,
    "num_mel_bins": 8,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "max_source_positions": POSITIONS,
    "max_target_positions": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "init_std": 0.5,
    "dropout": 0.0,
}


def whisper(seed: int = 0, attention: str = "eager", **options):
    """A tiny model whose transcripts vary: embeddings of one length, strong positions."""
    torch.manual_seed(seed)
    options["attn_implementation"] = attention
    model = randomise(from_config("WhisperForConditionalGeneration", {**SIZES, **options})).eval()
    embeddings = model.model.decoder.embed_tokens.weight.data
    embeddings.mul_(0.3 / embeddings.norm(dim=1, keepdim=True).clamp_min(1e-6))
    model.model.decoder.embed_positions.weight.data.mul_(8.0)
    return model


def batch() -> dict[str, torch.Tensor]:
    """Two windows of noise, with labels."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([[3, 4, 5, 2], [6, 7, 2, -100]])
    features = torch.randn(2, SIZES["num_mel_bins"], 2 * POSITIONS, generator=generator)
    return {"input_features": features, "labels": labels}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch()).logits


def decoding_macs(model, heard: torch.Tensor, number: int) -> int:
    """Counted MACs of one recording, decoded token by token with a cache.

    Args:
        model: an encoder with a decoder.
        heard: the encoder's input, of one recording.
        number: of tokens.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoded, cache = model.model.encoder(heard), None
        for _ in range(number):
            step = model(
                encoder_outputs=encoded,
                decoder_input_ids=torch.tensor([[5]]),
                past_key_values=cache,
                use_cache=True,
            )
            cache = step.past_key_values
    return counter.get_total_flops() // 2


def tokens(model, **options) -> list[list[int]]:
    """What transformers' own generate decodes, by default greedily and with a cache."""
    features = batch()["input_features"]
    length = {"max_length": 12, "min_length": 12}
    return model.generate(features, **length, **options).tolist()


class Whisper(AllSites):
    reference_seconds = SECONDS


def check(gated) -> torch.nn.Module:
    """Masked equals cut; parameters and MACs are exactly what the budget says."""
    small = cut(gated)
    assert float((logits(gated) - logits(small)).abs().max()) < 2e-5
    masks = gated.hard_masks()
    kept = sum(p.numel() for p in small.parameters())
    assert kept == gated.budget.total - gated.budget.prunable + gated.budget.hard(masks)
    macs = Budget(gated.site_map, gated.gate_names(), "macs")
    assert decoding_macs(
        small, batch()["input_features"][:1], NUMBER
    ) == macs.total - macs.prunable + macs.hard(masks)
    assert tokens(gated.model) == tokens(small)
    return small


def assert_the_cache_gives_the_whole_sequence(small: torch.nn.Module) -> None:
    """Token by token behind a cache, as all at once."""
    features, ids = batch()["input_features"], torch.tensor([[1, 7, 9, 4, 8]]).expand(2, -1)
    with torch.no_grad():
        whole = small(features, decoder_input_ids=ids).logits
        start = small(features, decoder_input_ids=ids[:, :3], use_cache=True)
        assert start.past_key_values.get_seq_length() == 3
        cache = start.past_key_values
        rest = small(features, decoder_input_ids=ids[:, 3:], past_key_values=cache, use_cache=True)
    assert torch.allclose(torch.cat([start.logits, rest.logits], 1), whole, atol=1e-5)
