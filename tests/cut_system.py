"""A cut system that tests of export, decoding and reports share."""

from pathlib import Path

import torch
from tiny_models import ENCODER

TEXTS = ("YES NO", "IT'S A GO", "STOP", "NO NO YES", "GO A STOP")


def write_cut_system(folder: Path) -> Path:
    """Makes the folder of a cut system with random weights, BPE tokens and global_mvn."""
    from espnet_prune.data.tokens import make_tokens
    from espnet_prune.methods import make_method
    from espnet_prune.models.espnet.build import build_asr_model
    from espnet_prune.surgery import cut, inject
    from espnet_prune.train.system import update_record, write_cut

    (folder / "data").mkdir(parents=True)
    text = folder / "data/text"
    text.write_text("".join(f"u{i} {t}\n" for i, t in enumerate(TEXTS)))
    torch.manual_seed(0)
    model = build_asr_model(
        {
            "token_list": make_tokens(text, folder / "data/tokens", "bpe", 16),
            "token_type": "bpe",
            "bpemodel": str(folder / "data/tokens/bpe.model"),
            "frontend_conf": {"n_mels": 20, "hop_length": 160, "win_length": 400},
            "normalize": "global_mvn",
            "encoder": "conformer",
            "encoder_conf": ENCODER,
            "decoder": "transformer",
            "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
        }
    ).eval()
    torch.nn.init.normal_(model.ctc.ctc_lo.weight, 0.0, 3.0)
    model.normalize.mean.uniform_(-3, 3)
    model.normalize.std.uniform_(0.5, 2)
    method = make_method("uniform_magnitude", target=0.5, updates=4)
    gated = inject(model, method).eval()
    write_cut(folder, cut(gated, method.masks(gated)), "model")
    update_record(folder, method="uniform_magnitude", target=0.5, seed=0)
    return folder
