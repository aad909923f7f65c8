"""A small spoken corpus that flite's voices speak: commands, digit strings, spelled made-up words.

A seeded grammar makes the sentences, each one once, so that no sentence of one set is in another;
the speakers (flite's voices) are the same in all sets. Rate, pitch and pink noise vary by
utterance. The same configuration and release of flite give the same samples.
"""

import dataclasses
import io
import logging
import random
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import soundfile
import soxr

from espnet_prune.config import check_choice, check_range
from espnet_prune.data.audio_io import write_audio
from espnet_prune.data.kaldi_dir import DataSet, write_data
from espnet_prune.data.parallel import parallel_map
from espnet_prune.errors import ConfigError, EnvironmentProblem
from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
SPEAK_TIMEOUT_SECONDS = 60
PEAK = 0.99  # of full scale, where speech and noise would clip
MAX_DRAWS = 2000  # in a row that all gave a known sentence: the grammar is used up
INT16_MAX = 32767

DIGITS = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()
VOWELS, CONSONANTS = "AEIOUY", "BCDFGHJKLMNPQRSTVWXZ"
ROOMS = "KITCHEN BEDROOM BATHROOM GARAGE OFFICE GARDEN HALL CELLAR".split()
DEVICES = "LIGHT LAMP FAN HEATER RADIO TELEVISION".split()
OPENINGS = "DOOR WINDOW CURTAIN GATE".split()
MUSIC = "JAZZ ROCK FOLK PIANO DANCE".split()
DAYS = "MONDAY TUESDAY WEDNESDAY THURSDAY FRIDAY SATURDAY SUNDAY".split()
COMMANDS = (
    "TURN {switch} THE {room} {device}",
    "SET THE {room} {device} TO {digit} {digit}",
    "{move} THE {room} {opening}",
    "PLAY {music} MUSIC IN THE {room}",
    "WAKE ME AT {digit} {digit} ON {day}",
    "WAIT {digit} MINUTES AND {move} THE {opening}",
    "TURN {switch} THE {device} AT {digit} ON {day}",
)
SLOTS = {
    "switch": ("ON", "OFF"),
    "move": ("OPEN", "CLOSE"),
    "room": ROOMS,
    "device": DEVICES,
    "opening": OPENINGS,
    "music": MUSIC,
    "day": DAYS,
    "digit": DIGITS,
}
DIGITS_LENGTHS = (4, 5, 6)
SPELLING_SHAPES = ("CVC", "CVCV", "VCVC", "CVCVC")


@dataclass(frozen=True)
class Corpus:
    """What corpus.yaml may say.

    Attributes:
        seed: seed of sentences, voices and noise.
        sets: number of utterances by set.
        voices: flite voices and their mean pitch in Hz.
        kinds: relative frequency of each kind of sentence.
        duration_stretch: range of the factor on every duration.
        pitch_ratio: range of the factor on a voice's mean pitch (flite's rms ignores it).
        snr_db: range of the ratio of speech to noise, in dB; None for no noise.
    """

    seed: int = 1
    sets: dict[str, int] = field(default_factory=lambda: {"train": 1100, "dev": 80, "test": 150})
    voices: dict[str, float] = field(
        default_factory=lambda: {"awb": 124.0, "kal16": 103.0, "rms": 101.0, "slt": 174.0}
    )
    kinds: dict[str, float] = field(
        default_factory=lambda: {"command": 4.0, "digits": 2.0, "spelling": 1.0}
    )
    duration_stretch: tuple[float, float] = (0.95, 1.15)
    pitch_ratio: tuple[float, float] = (0.9, 1.1)
    snr_db: tuple[float, float] | None = (20.0, 40.0)


@dataclass(frozen=True)
class Utterance:
    """One recording to make; ``noise_seed`` draws its noise, ``snr_db`` None adds none."""

    name: str
    text: str
    voice: str
    duration_stretch: float
    pitch_hz: float
    snr_db: float | None
    noise_seed: tuple[int, int]
    path: Path


def _command(draw: random.Random) -> str:
    return re.sub(r"{(\w+)}", lambda m: draw.choice(SLOTS[m[1]]), draw.choice(COMMANDS))


def _digits(draw: random.Random) -> str:
    return " ".join(draw.choice(DIGITS) for _ in range(draw.choice(DIGITS_LENGTHS)))


def _spelling(draw: random.Random) -> str:
    letters = {"C": CONSONANTS, "V": VOWELS}
    return "SPELL " + " ".join(draw.choice(letters[c]) for c in draw.choice(SPELLING_SHAPES))


KINDS: dict[str, Callable[[random.Random], str]] = {
    "command": _command,
    "digits": _digits,
    "spelling": _spelling,
}


def check(corpus: Corpus, where: str) -> None:
    """ConfigError where a value of the corpus is out of range; names the key."""
    for name, count in corpus.sets.items():
        if not re.fullmatch(r"\w+", name):
            raise ConfigError(f"{where}: sets: '{name}' is not a name of letters, digits and '_'")
        check_range(f"{where}: sets.{name}", count, 1, 100_000)
    for name, weight in corpus.kinds.items():
        check_choice(f"{where}: kinds", name, KINDS)
        check_range(f"{where}: kinds.{name}", weight, 0, 1e6)
    for key, empty in (
        ("sets", not corpus.sets),
        ("voices", not corpus.voices),
        ("kinds", not sum(corpus.kinds.values())),
    ):
        if empty:
            raise ConfigError(f"{where}: {key}: at least one of them was expected")
    check_range(f"{where}: seed", corpus.seed, 0, 2**32 - 1)
    for name, pitch in corpus.voices.items():
        check_range(f"{where}: voices.{name} (Hz)", pitch, 40, 500)
    limits = {"duration_stretch": (0.3, 3.0), "pitch_ratio": (0.5, 2.0), "snr_db": (-20, 100)}
    for key, (low, high) in limits.items():
        values = getattr(corpus, key)
        if values is None:
            continue
        if len(values) != 2 or values[0] > values[1]:
            raise ConfigError(f"{where}: {key}: [lowest, highest] was expected, not {values}")
        for value in values:
            check_range(f"{where}: {key}", value, low, high)


def draw_sentences(corpus: Corpus, draw: random.Random, where: str = "corpus") -> list[str]:
    """Distinct sentences for all sets, shuffled.

    Kinds with few sentences give ever fewer new ones; unshuffled, the sets' mixtures would differ.

    Raises:
        ConfigError: the chosen kinds have too few distinct sentences.
    """
    names, weights = list(corpus.kinds), list(corpus.kinds.values())
    wanted = sum(corpus.sets.values())
    found: dict[str, None] = {}
    failures = 0
    while len(found) < wanted:
        sentence = KINDS[draw.choices(names, weights)[0]](draw)
        failures = failures + 1 if sentence in found else 0
        if failures > MAX_DRAWS:
            raise ConfigError(
                f"{where}: sets: {wanted} utterances are asked for, but kinds {names} give "
                f"only about {len(found)} different sentences; ask for fewer or add kinds"
            )
        found[sentence] = None
    return draw.sample(list(found), len(found))


def plan(corpus: Corpus, out: Path, where: str = "corpus") -> dict[str, list[Utterance]]:
    """Every utterance of every set: sentence, voice, rate, pitch and noise."""
    draw = random.Random(corpus.seed)
    sentences = iter(enumerate(draw_sentences(corpus, draw, where)))
    sets: dict[str, list[Utterance]] = {}
    for set_name, count in corpus.sets.items():
        sets[set_name] = []
        for number in range(count):
            index, text = next(sentences)
            voice = draw.choice(list(corpus.voices))
            name = f"{voice}-{set_name}-{number:05d}"
            sets[set_name].append(
                Utterance(
                    name=name,
                    text=text,
                    voice=voice,
                    duration_stretch=round(draw.uniform(*corpus.duration_stretch), 3),
                    pitch_hz=round(corpus.voices[voice] * draw.uniform(*corpus.pitch_ratio), 1),
                    snr_db=draw.uniform(*corpus.snr_db) if corpus.snr_db else None,
                    noise_seed=(corpus.seed, index),
                    path=out.resolve() / set_name / "audio" / f"{name}.wav",
                )
            )
    return sets


def _flite(*arguments: str) -> bytes:
    """What flite writes to its standard output.

    Raises:
        EnvironmentProblem: flite is missing or fails.
    """
    try:
        done = subprocess.run(
            ["flite", *arguments], capture_output=True, timeout=SPEAK_TIMEOUT_SECONDS
        )
    except FileNotFoundError as error:
        raise EnvironmentProblem(
            "flite, which speaks the synthetic corpus, is not installed; on Debian or Ubuntu: "
            "apt-get install flite"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentProblem(
            f"flite {' '.join(arguments)}: no result in {SPEAK_TIMEOUT_SECONDS} s"
        ) from error
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        raise EnvironmentProblem(
            f"flite {' '.join(arguments)}: failed with status {done.returncode}: {message}"
        )
    return done.stdout


def check_voices(corpus: Corpus, where: str) -> None:
    """ConfigError for a voice that flite lacks, which flite itself would silently replace."""
    available = _flite("-lv").decode().partition(":")[2].split()
    for voice in corpus.voices:
        check_choice(f"{where}: voices", voice, available)


def spoken(text: str) -> str:
    """The text for flite: single letters as capitals, so that A is a letter and no article."""
    return " ".join(word if len(word) == 1 else word.lower() for word in text.split())


def speak(utterance: Utterance) -> numpy.ndarray:
    """Clean samples (samples,) in [-1, 1] at ``SAMPLE_RATE``."""
    sound = _flite(
        *("-voice", utterance.voice),
        *("--setf", f"duration_stretch={utterance.duration_stretch}"),
        *("--setf", f"int_f0_target_mean={utterance.pitch_hz}"),
        *("-t", spoken(utterance.text), "-o", "/dev/stdout"),
    )
    try:
        samples, rate = soundfile.read(io.BytesIO(sound))
    except soundfile.SoundFileError as error:
        raise EnvironmentProblem(
            f"flite gave no sound for '{utterance.text}' by voice {utterance.voice} ({error}); "
            "install flite 2.2 or later"
        ) from error
    return samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)


def add_noise(samples: numpy.ndarray, snr_db: float | None, seed: tuple[int, int]) -> numpy.ndarray:
    """Adds pink noise (power falling as 1/frequency) at a ratio to the whole utterance's power."""
    if snr_db is None:
        return samples
    white = numpy.random.default_rng(seed).standard_normal(len(samples))
    spectrum = numpy.fft.rfft(white)
    pink = numpy.fft.irfft(spectrum / numpy.sqrt(numpy.arange(len(spectrum)) + 1.0), len(samples))
    power = numpy.mean(samples**2) / 10 ** (snr_db / 10)
    return samples + pink * numpy.sqrt(power / numpy.mean(pink**2))


def make(utterance: Utterance) -> float:
    """Makes one recording and returns its seconds."""
    samples = add_noise(speak(utterance), utterance.snr_db, utterance.noise_seed)
    samples *= min(1.0, PEAK / numpy.abs(samples).max(initial=PEAK))
    whole = numpy.round(samples * INT16_MAX).astype(numpy.int16)
    write_audio(utterance.path, whole, SAMPLE_RATE)
    return len(whole) / SAMPLE_RATE


def prepare(corpus: Corpus, out: Path, jobs: int = 1, where: str = "corpus") -> dict[str, float]:
    """Makes the corpus, unless it is there already.

    Args:
        corpus: what to make.
        out: the recipe's data folder; a set is made in ``out/SET``, its audio below it.
        jobs: number of processes.
        where: the file that errors about the corpus name.

    Returns:
        Minutes of audio by set; empty where all of it was there.

    Raises:
        ConfigError: a value of the corpus is wrong, or ``out`` holds another corpus.
        EnvironmentProblem: flite is missing or fails, or the disk is full.
    """
    check(corpus, where)
    settings = dataclasses.asdict(corpus)
    if finished(out, settings, OTHER_WORK_DIR):
        return {}
    check_voices(corpus, where)
    minutes = {}
    for name, utterances in plan(corpus, out, where).items():
        minutes[name] = sum(parallel_map(make, utterances, jobs, name)) / 60
        write_data(
            out / name,
            DataSet(
                {u.name: str(u.path) for u in utterances},
                {u.name: u.text for u in utterances},
                {u.name: u.voice for u in utterances},
            ),
        )
        logger.info("%s: %d utterances, %.1f minutes", name, len(utterances), minutes[name])
    mark_finished(out, settings)
    return minutes
