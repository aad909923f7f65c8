"""A tiny experiment on noise that a test makes itself, driven through the real mains.

Its trainings ask for mixed precision, as a full-size recipe does that is tried on a CPU.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
from warm_python import WarmPython

RATE = 16000
WORDS = ("YES", "NO", "GO", "STOP")
MODEL = """\
base: {repository}/conf/models/conformer.yaml
frontend_conf: {{n_mels: 20}}
encoder_conf:
  {{output_size: 16, attention_heads: 2, linear_units: 24, num_blocks: 2, cnn_module_kernel: 5}}
decoder_conf: {{attention_heads: 2, linear_units: 16, num_blocks: 1}}
specaug_conf: {{freq_mask_width_range: [0, 3]}}
optim_conf: {{lr: 1e-3}}
scheduler_conf: {{warmup_steps: 5}}
"""
TRAINING = """\
use_amp: true
batch_bins: 120000
num_iters_per_epoch: 4
max_epoch: 3
best_model_criterion: [[valid, acc, max]]
keep_nbest_models: 2
"""
SHORT = {"num_iters_per_epoch": 2, "max_epoch": 1, "use_amp": False, "keep_nbest_models": 1}
SYSTEMS = """\
systems:
  l0: {method: l0_distill, target: 0.4, seed: 3}
  magnitude: {method: magnitude, target: 0.4}
"""


def write_recipe(folder: Path, repository: Path, growth: int = 800) -> None:
    """Configurations, two dump folders and tokens; each utterance has ``growth`` samples more."""
    from espnet_prune.data.kaldi_dir import DataSet, write_data, write_map
    from espnet_prune.data.tokens import make_tokens

    conf = folder / "conf"
    conf.mkdir(parents=True)
    (conf / "teacher.yaml").write_text(MODEL.format(repository=repository) + TRAINING)
    (conf / "prune.yaml").write_text(f"base: {repository}/conf/prune.yaml\n{TRAINING}")
    (conf / "finetune.yaml").write_text(f"base: {repository}/conf/finetune.yaml\n{TRAINING}")
    (conf / "systems.yaml").write_text(SYSTEMS)
    generator = numpy.random.default_rng(0)
    import soundfile

    for name, number in (("train", 16), ("dev", 6)):
        recordings, texts, speakers, lengths = {}, {}, {}, {}
        audio = folder / "dump" / name / "audio"
        audio.mkdir(parents=True)
        for index in range(number):
            utterance = f"s{index % 2}-{name}{index:02d}"
            samples = generator.normal(0, 3000, RATE + growth * index).astype(numpy.int16)
            soundfile.write(audio / f"{utterance}.flac", samples, RATE)
            recordings[utterance] = str((audio / f"{utterance}.flac").resolve())
            texts[utterance] = " ".join(generator.choice(WORDS, 2))
            speakers[utterance] = utterance[:2]
            lengths[utterance] = str(len(samples))
        write_data(folder / "dump" / name, DataSet(recordings, texts, speakers))
        write_map(folder / "dump" / name / "utt2num_samples", lengths)
    make_tokens(folder / "dump/train/text", folder / "data/tokens", "char", 0)


def change(path: Path, **values) -> None:
    """Writes a configuration with other values, such as those of SHORT."""
    import yaml

    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))


# Without what sees only a process's share of the batch (norm statistics, as a Conformer's
# convolutions have them) or draws by process.
PLAIN = """\
use_amp: false
frontend: null
frontend_conf: {}
input_size: 1
specaug: null
specaug_conf: {}
normalize: null
encoder: ssl
encoder_conf:
  model:
    {hidden_size: 16, num_attention_heads: 2, intermediate_size: 24, num_hidden_layers: 2,
     conv_dim: [8, 8], conv_kernel: [20, 16], conv_stride: [10, 16], num_feat_extract_layers: 2,
     num_conv_pos_embeddings: 16, num_conv_pos_embedding_groups: 4, feat_extract_norm: layer,
     do_stable_layer_norm: true, layerdrop: 0.0, hidden_dropout: 0.0, attention_dropout: 0.0,
     activation_dropout: 0.0, feat_proj_dropout: 0.0, mask_time_prob: 0.0}
decoder: transformer
decoder_conf:
  {attention_heads: 2, linear_units: 16, num_blocks: 1, dropout_rate: 0.0,
   positional_dropout_rate: 0.0, self_attention_dropout_rate: 0.0, src_attention_dropout_rate: 0.0}
model_conf: {ctc_weight: 0.3, report_cer: false, report_wer: false}
optim: adam
scheduler: warmuplr
batch_type: numel
num_workers: 1
"""
DECODE = "modes: [greedy, joint]\nbeam_size: 2\n"
PROFILE = """\
reference_seconds: 1
repeats: 1
greedy_utterances: 1
joint_utterances: 1
beam_size: 2
"""


def write_whole_recipe(folder: Path, repository: Path) -> None:
    """The same for all of the driver's stages after the first: data folders instead of dumps."""
    write_recipe(folder, repository)
    (folder / "dump").rename(folder / "made")
    for name in ("train", "dev"):
        text = (folder / "made" / name / "wav.scp").read_text()
        (folder / "data" / name).mkdir()
        for file in ("text", "utt2spk", "spk2utt"):
            (folder / "made" / name / file).rename(folder / "data" / name / file)
        (folder / "data" / name / "wav.scp").write_text(text.replace("/dump/", "/made/"))
    shutil.copytree(folder / "data/dev", folder / "data/test")
    (folder / "conf/decode.yaml").write_text(DECODE)
    (folder / "conf/profile.yaml").write_text(PROFILE)


def write_plain_recipe(folder: Path, repository: Path) -> None:
    """A recipe whose teacher has the same losses however many processes share a batch."""
    import yaml

    write_recipe(folder, repository, growth=0)  # padding differs by batch, a little
    teacher = folder / "conf/teacher.yaml"
    config = yaml.safe_load(teacher.read_text())
    plain = {**config, **yaml.safe_load(PLAIN)}
    del plain["base"]
    teacher.write_text(yaml.safe_dump(plain))


def driver_command(folder: Path, repository: Path, jobs: int = 1) -> list[str]:
    """The driver over such a folder."""
    return [
        str(repository / "egs/TEMPLATE/prune1/prune.sh"),
        *("--corpus", "noise", "--conf_dir", str(folder / "conf"), "--work_dir", str(folder)),
        *("--train_set", "train", "--valid_set", "dev", "--test_sets", "test"),
        *("--speed_factors", "0.9 1.0", "--token_type", "char", "--nj", str(jobs)),
        *("--local_data_cmd", "true"),
    ]


DATA = ["--train", "dump/train", "--valid", "dump/dev", "--tokens", "data/tokens"]
STATS = ["--stats", "exp/stats"]
FILES = ["systems", "prune", "finetune"]
CONFIGS = [w for name in FILES for w in ("--config", name, f"conf/{name}.yaml")]
COMMANDS = {
    "collect_stats": ["--config", "conf/teacher.yaml", *DATA, "--out", "exp/stats"],
    "train_teacher": ["--config", "conf/teacher.yaml", *DATA, *STATS, "--out", "exp/teacher"],
    "configure": ["--out", "exp", *CONFIGS, "--systems", *DATA, *STATS],
    "prune": ["--system", "exp/{s}"],
    "cut": ["--system", "exp/{s}"],
    "finetune": ["--system", "exp/{s}"],
}
FIRST = {"prune": ("configure", "prune"), "finetune": ("configure", "finetune")}


def command(main: str, system: str = "l0") -> list[str]:
    """The command line of a stage: Python, its module, the verb and its arguments."""
    arguments = [argument.format(s=system) for argument in COMMANDS[main]]
    return [sys.executable, "-m", "espnet_prune", main, *arguments]


def environment() -> dict[str, str]:
    """One thread, so that several tests share a machine, and the same sums every time."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": programs}


def run(folder: Path, main: str, system: str = "l0", warm: WarmPython | None = None) -> None:
    """Runs a stage to its end, by the Python that has imported if one is given."""
    for verb in FIRST.get(main, (main,)):
        words = command(verb, system)
        if warm is not None:
            words[0] = str(warm.folder / "python")
        done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]


def run_here(folder: Path, main: str, system: str = "l0") -> None:
    """The same in this process: ESPnet's import takes longer than a stage."""
    from espnet_prune import cli

    with contextlib.chdir(folder):
        for verb in FIRST.get(main, (main,)):
            assert not cli.run(command(verb, system)[3:])


def run_and_kill(folder: Path, main: str, when: Callable[[], bool], system: str = "l0") -> None:
    """Starts a stage and kills it with SIGKILL, its workers too, as soon as ``when`` holds."""
    process = subprocess.Popen(
        command(main, system),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not when():
            assert process.poll() is None, "the stage ended before it could be killed"
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def copy_without(source: Path, target: Path, unwanted: Sequence[str]) -> Path:
    """Copies an experiment without what some stages made; systems stay configured."""
    shutil.copytree(source, target, symlinks=True)
    for name in unwanted:
        path = target / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in source.glob("exp/*/config.yaml"):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    return target
