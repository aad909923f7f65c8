"""Tiny experiments as ESPnet's own recipes leave them: nothing of this package trains here."""

import contextlib
from pathlib import Path

import sentencepiece
import soundfile
import yaml

from espnet_prune.models.espnet.imports import importing_espnet

EXPERIMENT = "exp/asr_train"
STATISTICS = "exp/asr_stats"
TOKENS = {"bpe": "data/token_list/bpe_unigram20", "char": "data/token_list/char"}
CONF = {
    "encoder": "e_branchformer",
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 24,
        "cgmlp_linear_units": 24,
        "cgmlp_conv_kernel": 5,
        "num_blocks": 2,
        "use_ffn": True,
        "macaron_ffn": True,
    },
    "decoder": "transformer",
    "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
    "frontend_conf": {"n_mels": 20},
    "model_conf": {"ctc_weight": 0.3, "report_cer": False, "report_wer": False},
    "batch_type": "sorted",
    "batch_size": 4,
    "max_epoch": 1,
    "num_iters_per_epoch": 2,
    "use_matplotlib": False,
    "use_tensorboard": False,
    "best_model_criterion": [["valid", "acc", "max"]],
}


def write_tokens(folder: Path, kind: str) -> tuple[Path, Path | None]:
    """A token list as ESPnet's recipes make it, and the sentencepiece model for ``bpe``."""
    texts = [line.split(maxsplit=1)[1] for line in (folder / "dump/train/text").open()]
    out = folder / TOKENS.get(kind, "data/token_list/word")
    out.mkdir(parents=True)
    model = None
    if kind == "bpe":
        (out / "text").write_text("".join(texts))
        sentencepiece.SentencePieceTrainer.train(
            input=str(out / "text"),
            model_prefix=str(out / "bpe"),
            vocab_size=14,
            model_type="unigram",
            minloglevel=2,
        )
        model = out / "bpe.model"
        lines = (out / "bpe.vocab").read_text().splitlines()[3:]
        pieces = [line.split("\t")[0] for line in lines]
    elif kind == "char":
        pieces = sorted({c for text in texts for c in text.strip() if c != " "}) + ["<space>"]
    else:
        pieces = sorted({word for text in texts for word in text.split()})
    tokens = ["<blank>", "<unk>", *pieces, "<sos/eos>"]
    (out / "tokens.txt").write_text("".join(f"{token}\n" for token in tokens))
    return out / "tokens.txt", model


def train(folder: Path, kind: str, normalize: str, **conf) -> Path:
    """Collects statistics and trains, in a folder with ``dump/``, by paths relative to it.

    Returns:
        The experiment's folder.
    """
    with importing_espnet():  # torchaudio, which it asks for, may not load here
        from espnet2.tasks.asr import ASRTask

    tokens, model = write_tokens(folder, kind)
    (folder / "conf.yaml").write_text(yaml.safe_dump({**CONF, **conf}))
    common = ["--config", "conf.yaml", "--ngpu", "0", "--num_workers", "0", "--token_type", kind]
    common += ["--token_list", str(tokens.relative_to(folder))]
    common += [] if model is None else ["--bpemodel", str(model.relative_to(folder))]
    for name, part in (("train", "train"), ("valid", "dev")):
        option = f"--{name}_data_path_and_name_and_type"
        common += [option, f"dump/{part}/wav.scp,speech,sound"]
        common += [option, f"dump/{part}/text,text,text"]
    with contextlib.chdir(folder):
        shapes = [f"--{n}_shape_file=dump/{p}/utt2num_samples" for n, p in PARTS]
        options = ["--collect_stats", "true", "--normalize", "none", "--output_dir", STATISTICS]
        ASRTask.main(cmd=[*common, *shapes, *options])
        shapes = [f"--{n}_shape_file={STATISTICS}/{n}/speech_shape" for n, _ in PARTS]
        options = ["--normalize", normalize, "--output_dir", EXPERIMENT]
        if normalize == "global_mvn":
            options += ["--normalize_conf", f"stats_file={STATISTICS}/train/feats_stats.npz"]
        ASRTask.main(cmd=[*common, *shapes, *options])
    return folder / EXPERIMENT


PARTS = (("train", "train"), ("valid", "dev"))


def samples(folder: Path):
    """A recording that the model wasn't trained on, (samples,) within -1 to 1."""
    entry = (folder / "dump/dev/wav.scp").read_text().split()[1]
    return soundfile.read(entry, dtype="float32")[0]
