"""Configurations of tiny ESPnet models; each test says which encoder and decoder."""

TOKENS = ["<blank>", "<unk>", "a", "b", "c", "<space>", "<sos/eos>"]


def asr_config(**parts) -> dict:
    """What tests have in common, with a test's own parts, or others in their place."""
    common = {
        "token_list": TOKENS,
        "token_type": "char",
        "frontend": "default",
        "frontend_conf": {"n_fft": 512, "hop_length": 160, "n_mels": 20},
        "normalize": None,
        "model_conf": {"ctc_weight": 0.3},
    }
    return {**common, **parts}
