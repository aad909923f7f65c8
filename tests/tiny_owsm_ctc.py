"""The published options of OWSM-CTC 3.1, with small sizes and a small vocabulary."""

SIZE = 16
# cross-attention in every third block, which is where intermediate CTC listens, too
ENCODER = {
    "output_size": SIZE,
    "attention_heads": 4,
    "attention_layer_type": "selfattn",
    "pos_enc_layer_type": "abs_pos",
    "rel_pos_type": "latest",
    "cgmlp_linear_units": 24,
    "cgmlp_conv_kernel": 31,
    "use_linear_after_conv": False,
    "gate_activation": "identity",
    "num_blocks": 6,
    "input_layer": "conv2d8",
    "linear_units": 24,
    "positionwise_layer_type": "linear",
    "use_ffn": True,
    "macaron_ffn": True,
    "merge_conv_kernel": 31,
    "interctc_layer_idx": [2, 3],
    "interctc_use_conditioning": True,
    "use_cross_attention": [0, 0, 1, 0, 0, 1],
    "use_flash_attn": True,
}
LETTERS = ["<space>", "A", "B", "C"]
SPECIAL = ["<blank>", "<unk>", "<na>", "<nolang>", "<eng>", "<asr>"]
TOKENS = [*SPECIAL, *LETTERS, "<sop>", "<sos>", "<eos>"]
MODEL = {
    "token_list": TOKENS,
    "token_type": "char",
    "preprocessor": "s2t_ctc",
    "preprocessor_conf": {"na_symbol": "<na>", "nolang_symbol": "<nolang>", "speech_length": 30},
    "frontend_conf": {"n_fft": 512, "win_length": 400, "hop_length": 160},
    "normalize": "global_mvn",
    "encoder": "e_branchformer_ctc",
    "encoder_conf": ENCODER,
    "promptencoder": "transformer",
    "promptencoder_conf": {
        "output_size": 8,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 1,
        "use_flash_attn": True,
    },
    "model": "espnet_ctc",
    "model_conf": {
        "interctc_weight": 0.8,
        "sym_na": "<na>",
        "ctc_asr_only": [True, False, False],
        "report_cer": False,
        "report_wer": False,
    },
}
