"""What OWSM-CTC is told besides the sound: language and task, and what was said before.

Two tokens stand before the frames of sound, and the blocks with cross-attention look at a text.
Here both are what ESPnet's inference says where it is told nothing: any language, recognition, no
text.
"""

import torch
from torch import Tensor, nn

from espnet_prune.errors import ModelError

PREFIX = ("<nolang>", "<asr>")
TEXT_TOKENS = 1  # the one that says that there is no text


def prompt_tokens(model: nn.Module, batch: int) -> dict[str, Tensor]:
    """What the ``encode`` of such a model takes besides speech; nothing for all other models.

    Args:
        model: a whole ESPnet model.
        batch: number of utterances.

    Returns:
        ``prefix`` (B, 2), ``text_prev`` (B, 1), and their lengths (B,).

    Raises:
        ModelError: the model has no such tokens.
    """
    if not hasattr(model, "prompt_encoder"):
        return {}
    lacking = [token for token in PREFIX if token not in model.token_list]
    if lacking:
        raise ModelError(
            f"token_list: {', '.join(lacking)} isn't there, but OWSM-CTC is told "
            f"{' '.join(PREFIX)} where no language is given; build the model by the token_list "
            "that it was trained with"
        )
    device = model.embed.weight.device
    tokens = {
        "prefix": [model.token_list.index(token) for token in PREFIX],
        "text_prev": [model.na] * TEXT_TOKENS,
    }
    found = {}
    for name, ids in tokens.items():
        found[name] = torch.tensor([ids] * batch, device=device)
        found[f"{name}_lengths"] = torch.tensor([len(ids)] * batch, device=device)
    return found


def prompt_of(model: nn.Module, batch: int) -> dict[str, Tensor]:
    """The same as the encoder of such a model takes it; nothing for all other models.

    Returns:
        ``prefix_embeds`` (B, 2, D), ``memory`` (B, 1, D) and ``memory_mask`` (B, 1, 1).

    Raises:
        ModelError: the model has no such tokens.
    """
    tokens = prompt_tokens(model, batch)
    if not tokens:
        return {}
    text = model.pos_enc(model.embed(tokens["text_prev"]))
    memory, _, _ = model.prompt_encoder(text, tokens["text_prev_lengths"])
    return {
        "prefix_embeds": model.embed_proj(model.embed(tokens["prefix"])),
        "memory": model.prompt_proj(memory),
        "memory_mask": torch.ones_like(tokens["text_prev"], dtype=torch.bool)[:, None],
    }
