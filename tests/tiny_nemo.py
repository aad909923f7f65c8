"""A tiny NeMo Conformer-CTC: its archive, and a forward pass written here from what NeMo publishes.

Nothing of the package is used for either, so that a test compares two readings of the same model.
"""

import io
import math
import tarfile
from pathlib import Path

import torch
import yaml
from torch.nn import functional as F

SIZE, HEADS, UNITS, KERNEL, BLOCKS, BANDS, CHANNELS = 16, 4, 64, 7, 2, 40, 12
PIECES = 30
TEXTS = ["the cat sat on the mat", "a dog ran to the tree", "we see the sea", "on a mat ran we"]


def configuration(**encoder) -> dict:
    """``model_config.yaml`` as NeMo writes it."""
    return {
        "sample_rate": 16000,
        "target": "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE",
        "tokenizer": {"dir": None, "type": "bpe", "model_path": "nemo:abc_tokenizer.model"},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": BANDS,
            "n_fft": 512,
            "log": True,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": BANDS,
            "n_layers": BLOCKS,
            "d_model": SIZE,
            "subsampling": "striding",
            "subsampling_factor": 4,
            "subsampling_conv_channels": CHANNELS,
            "ff_expansion_factor": UNITS // SIZE,
            "self_attention_model": "rel_pos",
            "n_heads": HEADS,
            "att_context_size": [-1, -1],
            "xscaling": True,
            "untie_biases": True,
            "conv_kernel_size": KERNEL,
            "conv_norm_type": "batch_norm",
            "dropout": 0.1,
            **encoder,
        },
        "decoder": {"feat_in": SIZE, "num_classes": PIECES},
    }


def tokenizer() -> bytes:
    """A sentencepiece model."""
    import sentencepiece

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=file,
        vocab_size=PIECES,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        minloglevel=2,
    )
    return file.getvalue()


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict under NeMo's names, every value drawn."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        scale = 1 / math.sqrt(math.prod(shape[1:]))
        state[f"{name}.weight"] = scale * torch.randn(*shape, generator=generator)
        if bias:
            state[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=generator)

    def norm(name: str) -> None:
        state[f"{name}.weight"] = 1 + 0.3 * torch.randn(SIZE, generator=generator)
        state[f"{name}.bias"] = 0.3 * torch.randn(SIZE, generator=generator)

    layer("encoder.pre_encode.conv.0", CHANNELS, 1, 3, 3)
    layer("encoder.pre_encode.conv.2", CHANNELS, CHANNELS, 3, 3)
    layer("encoder.pre_encode.out", SIZE, CHANNELS * BANDS // 4)
    for block in range(BLOCKS):
        at = f"encoder.layers.{block}."
        for name in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
            norm(f"{at}norm_{name}")
        for name in ("feed_forward1", "feed_forward2"):
            layer(f"{at}{name}.linear1", UNITS, SIZE)
            layer(f"{at}{name}.linear2", SIZE, UNITS)
        for name in ("q", "k", "v", "out"):
            layer(f"{at}self_attn.linear_{name}", SIZE, SIZE)
        layer(f"{at}self_attn.linear_pos", SIZE, SIZE, bias=False)
        for name in ("u", "v"):
            state[f"{at}self_attn.pos_bias_{name}"] = torch.randn(
                HEADS, SIZE // HEADS, generator=generator
            )
        layer(f"{at}conv.pointwise_conv1", 2 * SIZE, SIZE, 1)
        layer(f"{at}conv.depthwise_conv", SIZE, 1, KERNEL)
        layer(f"{at}conv.pointwise_conv2", SIZE, SIZE, 1)
        norm(f"{at}conv.batch_norm")
        state[f"{at}conv.batch_norm.running_mean"] = torch.randn(SIZE, generator=generator)
        state[f"{at}conv.batch_norm.running_var"] = 0.5 + torch.rand(SIZE, generator=generator)
        state[f"{at}conv.batch_norm.num_batches_tracked"] = torch.tensor(7)
    layer("decoder.decoder_layers.0", PIECES + 1, SIZE, 1)
    return state


def write_archive(path: Path, config: dict, state: dict, mode: str = "w") -> Path:
    """A ``.nemo`` file; ``mode`` w:gz for a packed one."""
    file = io.BytesIO()
    torch.save(state, file)
    members = {
        "./model_config.yaml": yaml.safe_dump(config).encode(),
        "./model_weights.ckpt": file.getvalue(),
        "./abc_tokenizer.model": tokenizer(),
    }
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def features(samples: torch.Tensor) -> torch.Tensor:
    """Log-mel features (T, F) of one recording (samples,), by numbers alone."""
    import librosa

    frames = len(samples) // 160
    emphasised = samples.double()
    emphasised = torch.cat([emphasised[:1], emphasised[1:] - 0.97 * emphasised[:-1]])
    padded = F.pad(emphasised, (256, 256))
    steps = torch.arange(400, dtype=torch.float64)
    window = F.pad(0.5 - 0.5 * torch.cos(2 * math.pi * steps / 399), (56, 56))
    rows = torch.stack([padded[160 * t : 160 * t + 512] * window for t in range(frames)])
    power = torch.fft.rfft(rows).abs() ** 2
    bands = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=512, n_mels=BANDS)).double()
    logs = torch.log(power @ bands.T + 2**-24)
    return ((logs - logs.mean(0)) / (logs.std(0) + 1e-5)).float()


def log_probs(state: dict[str, torch.Tensor], samples: torch.Tensor, scaled: bool = True):
    """NeMo's outputs (T', pieces + blank) for one recording, the blank last."""
    state = {name: value.float() for name, value in state.items()}

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return F.linear(x, weight.flatten(1), state.get(f"{name}.bias"))

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (SIZE,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    x = features(samples)[None, None]
    for index in (0, 2):
        name = f"encoder.pre_encode.conv.{index}"
        x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], 2, 1))
    x = linear("encoder.pre_encode.out", x[0].transpose(0, 1).flatten(1))
    x = x * math.sqrt(SIZE) if scaled else x
    frames = len(x)
    distance = torch.arange(frames - 1, -frames, -1.0)[:, None]
    rates = torch.exp(torch.arange(0, SIZE, 2) * -(math.log(10000.0) / SIZE))
    table = torch.stack([torch.sin(distance * rates), torch.cos(distance * rates)], -1).flatten(1)
    for block in range(BLOCKS):
        at = f"encoder.layers.{block}."
        for half in (1, 2):
            if half == 2:
                x = x + _attention(state, f"{at}self_attn.", norm(f"{at}norm_self_att", x), table)
                x = x + _convolution(state, f"{at}conv.", norm(f"{at}norm_conv", x))
            y = norm(f"{at}norm_feed_forward{half}", x)
            y = F.silu(linear(f"{at}feed_forward{half}.linear1", y))
            x = x + 0.5 * linear(f"{at}feed_forward{half}.linear2", y)
        x = norm(f"{at}norm_out", x)
    return torch.log_softmax(linear("decoder.decoder_layers.0", x), dim=-1)


def _attention(state: dict, at: str, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    frames, width = len(x), SIZE // HEADS

    def heads(name: str, y: torch.Tensor) -> torch.Tensor:
        made = F.linear(y, state[f"{at}{name}.weight"], state.get(f"{at}{name}.bias"))
        return made.view(-1, HEADS, width).transpose(0, 1)

    q, k, v, p = (heads(f"linear_{n}", table if n == "pos" else x) for n in ("q", "k", "v", "pos"))
    content = (q + state[f"{at}pos_bias_u"][:, None]) @ k.mT
    position = (q + state[f"{at}pos_bias_v"][:, None]) @ p.mT  # by distance, from the furthest
    places = frames - 1 - torch.arange(frames)[:, None] + torch.arange(frames)[None, :]
    position = position.gather(2, places.expand(HEADS, -1, -1))
    seen = torch.softmax((content + position) / math.sqrt(width), dim=-1) @ v
    seen = seen.transpose(0, 1).reshape(frames, SIZE)
    return F.linear(seen, state[f"{at}linear_out.weight"], state[f"{at}linear_out.bias"])


def _convolution(state: dict, at: str, x: torch.Tensor) -> torch.Tensor:
    def convolve(name: str, y: torch.Tensor, **options) -> torch.Tensor:
        return F.conv1d(y, state[f"{at}{name}.weight"], state[f"{at}{name}.bias"], **options)

    y = F.glu(convolve("pointwise_conv1", x.T[None]), dim=1)
    y = convolve("depthwise_conv", y, padding=KERNEL // 2, groups=SIZE)
    names = ("running_mean", "running_var", "weight", "bias")
    y = F.batch_norm(y, *(state[f"{at}batch_norm.{name}"] for name in names), eps=1e-5)
    return convolve("pointwise_conv2", F.silu(y))[0].T
