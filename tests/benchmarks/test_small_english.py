"""Ours beside other recognisers: played ones, whose errors, sizes and times are known."""

import argparse
import json
import subprocess
import sys
import types
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy
import pytest

from espnet_prune.data.audio_io import write_audio
from espnet_prune.errors import ConfigError, DataError, EnvironmentProblem, ModelError

REFERENCES = {"a": "ONE MISTER SMITH", "b": "HE SAID SO", "c": "THE END"}


class Clock:
    """Stands for the module ``time``: every recogniser moves it by what it costs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.process_time = self.monotonic = lambda: self.now
        self.perf_counter = lambda: 3 * self.now  # as if others had two thirds of the core


@pytest.fixture
def english(repository, monkeypatch):
    """The benchmark on a played clock; ``english.Played`` is a recogniser."""
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import english_recognisers
    import small_english
    import small_english_report

    clock = Clock()
    monkeypatch.setattr(small_english, "time", clock)
    monkeypatch.setattr(small_english, "one_thread", lambda: None)  # of pytest's own process
    heard = []

    class Played(english_recognisers.Recogniser):
        """Knows utterances by their number of samples; the first call is not timed."""

        def __init__(self, name: str, texts: dict[int, str], size_bytes: int, *costs: float):
            self.name, self.texts, self.size_bytes = name, texts, size_bytes
            self.costs = iter([0.0, *costs] if len(costs) > 1 else [0.0] + 99 * list(costs))

        def transcribe(self, samples: numpy.ndarray) -> str:
            heard.append((self.name, len(samples)))
            clock.now += next(self.costs)
            return self.texts[len(samples)]

    return argparse.Namespace(
        main=small_english,
        recognisers=english_recognisers,
        report=small_english_report,
        Played=Played,
        heard=heard,
    )


def silence(*lengths: int) -> dict[str, numpy.ndarray]:
    return {name: numpy.zeros(n, numpy.int16) for name, n in zip("abc", lengths, strict=False)}


def test_every_utterance_goes_to_all_in_turn_and_the_least_time_counts(english):
    texts = {10: "x", 20: "y", 30: "z"}

    def run(seed: int) -> dict:
        english.heard.clear()
        played = {
            "slow": english.Played("slow", texts, 1, *[5.0, 4.0] * 3),
            "fast": english.Played("fast", texts, 1, *[1.0, 2.0] * 3),
        }
        return english.main.measure(played, silence(10, 20, 30), seed, repeats=2)

    found = run(0)
    assert {name: m.processor_seconds for name, m in found.items()} == {"slow": 12, "fast": 3}
    assert found["slow"].wall_seconds == 36
    assert found["fast"].texts == {"a": "x", "b": "y", "c": "z"}
    order = english.heard.copy()
    assert order[:2] == [("slow", 10), ("fast", 10)]  # untimed
    rounds = [order[start : start + 2] for start in range(2, 14, 2)]
    assert len(order) == 14 and all({n for n, _ in pair} == {"slow", "fast"} for pair in rounds)
    assert all(first[1] == second[1] for first, second in rounds)
    orders = []
    for seed in (0, *range(1, 9)):
        run(seed)
        orders.append(english.heard[2:])
    assert orders[0] == order[2:]
    firsts, utterances = zip(*[(o[0][0], o[0][1]) for o in orders], strict=True)
    assert set(firsts) == {"slow", "fast"} and len(set(utterances)) > 1


def test_it_ends_after_the_minutes_with_what_is_done(english):
    played = {"one": english.Played("one", {10: "x", 20: "y", 30: "z"}, 1, 50.0)}
    found = english.main.measure(played, silence(10, 20, 30), 0, minutes=1.5)
    assert len(found["one"].texts) == 2 and found["one"].processor_seconds == 100


def measured(english, seconds: float, *texts: str):
    return english.main.Measured(dict(zip("ab", texts, strict=True)), seconds, 2 * seconds)


def test_rows_count_errors_after_normalisation_and_times_beside_the_first(english):
    found = english.report.rows(
        {
            "ours": measured(english, 2.0, "one mister smith", "he said"),
            "theirs": measured(english, 6.0, "1, Mr. Smith!", "She said so?"),
        },
        REFERENCES,
        {"a": 3.0, "b": 5.0, "c": 90.0},
        {"ours": 10, "theirs": 20},
        {"ours"},
    )
    ours, theirs = found
    assert (ours.ours, theirs.ours, ours.size_bytes, theirs.size_bytes) == (True, False, 10, 20)
    assert ours.score["words"] == theirs.score["words"] == 6
    assert ours.errors == theirs.errors == (0, 1)
    assert ours.score["p_vs_teacher"] is None and theirs.score["p_vs_teacher"] == 1
    assert ours.score["deletions"] == 1 and theirs.score["substitutions"] == 1
    assert (ours.audio_seconds, ours.processor_rtf, ours.wall_rtf) == (8, 0.25, 0.5)
    assert (theirs.time_ratio, ours.time_ratio) == (3, 1)
    with pytest.raises(DataError, match="--minutes"):
        english.report.rows({"ours": english.main.Measured()}, {}, {}, {}, set())


def row(english, name: str, ours: bool, size: int, rtf: float, *errors: int):
    return english.report.Row(name, ours, size, 1.0, rtf, rtf, rtf, {}, errors)


def test_the_bar_is_of_the_fewest_errors_among_the_small_and_among_the_fast(english):
    rows = [
        row(english, "teacher", True, 50, 1.0, 1, 0, 0, 0, 0, 0),
        row(english, "cut", True, 30, 0.5, 2, 2, 0, 0, 0, 0),
        row(english, "as large, as fast", False, 50, 1.0, 1, 1, 1, 1, 1, 1),
        row(english, "small", False, 30, 9.0, 1, 1, 1, 1, 1, 1),
        row(english, "smallest", False, 29, 0.4, 9, 9, 9, 9, 9, 9),
        row(english, "as good", False, 30, 0.5, 0, 0, 4, 0, 0, 0),
    ]
    found = {v.rival: v for v in english.report.verdicts(rows)}
    assert list(found) == ["as large, as fast", "small", "smallest", "as good"]
    both = found["as large, as fast"]
    assert both.by_size == both.by_speed and both.by_size.name == "teacher"
    # five utterances differ by one error each: both signs of all alike, of 2^5
    assert (both.errors, both.by_size.errors) == (6, 1)
    assert both.by_size.p_value == pytest.approx(2 / 2**5)
    assert found["small"].by_size.name == "cut" and found["small"].by_speed.name == "teacher"
    assert found["smallest"].by_size is None and found["smallest"].by_speed is None
    assert found["as good"].by_size is None  # 4 errors are not fewer than 4


@pytest.fixture
def data(tmp_path):
    """Three utterances of 0.1, 0.2 and 0.3 s."""
    folder = tmp_path / "test_set"
    folder.mkdir()
    for number, name in enumerate(REFERENCES, 1):
        path = folder / f"{name}.wav"
        write_audio(path, numpy.full(1600 * number, number, numpy.int16), 16000)
    files = {
        "wav.scp": {name: folder / f"{name}.wav" for name in REFERENCES},
        "text": REFERENCES,
        "utt2spk": {name: name for name in REFERENCES},
    }
    for file, values in files.items():
        (folder / file).write_text("".join(f"{k} {v}\n" for k, v in values.items()))
    return folder


def test_one_command_writes_table_verdicts_and_plot(english, data, tmp_path, monkeypatch, capsys):
    right = {1600: "one mister smith", 3200: "he said so", 4800: "the end"}
    wrong = {**right, 1600: "won mister smith", 4800: "end"}

    def lacking():
        raise EnvironmentProblem("it isn't there; pip install it")

    entry = english.recognisers.Entry
    played = [
        entry("teacher, torch", True, lambda: english.Played("teacher", right, 9_000_000, 0.1)),
        entry("rival", False, lambda: english.Played("rival", wrong, 8_000_000, 0.3)),
        entry("absent", False, lacking),
    ]
    monkeypatch.setattr(english.main, "entries", lambda args, stack: played)
    monkeypatch.setattr(english.main.os, "getloadavg", lambda: (0.2, 0, 0))
    out = tmp_path / "out"
    words = ["--data", str(data), "--out", str(out), "--ours", "teacher=x", "--utterances", "3"]
    assert english.main.main(words) == 0
    record = json.loads((out / "small_english.json").read_text())
    teacher, rival = record["rows"]
    assert (teacher["score"]["errors"], rival["score"]["errors"]) == (0, 2)
    assert teacher["processor_rtf"] == pytest.approx(0.5)
    assert rival["time_ratio"] == pytest.approx(3)
    assert record["utterances"] == 3 and record["audio_seconds"] == pytest.approx(0.6)
    assert list(record["missing"]) == ["absent"]
    page = (out / "small_english.md").read_text()
    assert "- not compared: absent: it isn't there; pip install it" in page
    assert "| 2 | rival | 8 | 2 | 25.00 " in page and "| 1 | **teacher, torch** |" in page
    assert "not met: at 0 of 1 sizes, at 1 of 1 speeds" in page
    assert "at most as large, none of ours has fewer" in page
    assert "at least as fast, teacher, torch has 0 (p 0.500)" in page
    assert "Machine busy: load average 0.2 at the start, wall 3.00 x" in page
    assert (out / "small_english.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr()
    assert "absent: missing: it isn't there" in printed.err and "not met" in printed.out
    played[0] = entry("teacher, torch", True, lacking)
    assert english.main.main(words) == 2
    assert "teacher, torch, to which all are compared" in capsys.readouterr().err


@pytest.mark.parametrize("load, wall, busy", [(0.4, 1.0, False), (0.6, 1.0, True), (0, 1.2, True)])
def test_a_busy_machine_is_named(english, load, wall, busy):
    rows = [{"wall_rtf": wall, "processor_rtf": 1.0}]
    said = english.report.busy({"load_average": load, "rows": rows})
    assert said.startswith("Machine busy" if busy else "Machine idle")


def test_options_name_the_rows(english):
    words = "--data d --out o --ours t=x cut=y --whisper w=z --beams 1 5 --moonshine --pocketsphinx"
    args = english.main.get_parser().parse_args(words.split())
    names = [entry.name for entry in english.main.entries(args, ExitStack())]
    runtimes = ("torch", "ONNX fp32", "ONNX int8")
    assert names[:6] == [f"{model}, {runtime}" for model in ("t", "cut") for runtime in runtimes]
    faster = [f"w, faster-whisper int8, beam {beam}" for beam in (1, 5)]
    assert names[6:9] == [*faster, "w, transformers fp32"]
    assert names[9:] == ["Moonshine tiny, int8", "pocketsphinx"]
    args.ours.append(("t", Path("other")))
    with pytest.raises(ConfigError, match="'t, torch' is named twice"):
        english.main.entries(args, ExitStack())
    with pytest.raises(SystemExit):
        english.main.get_parser().parse_args("--data d --out o --ours folder".split())


def test_one_core_and_one_thread_are_left(repository):
    code = (
        "import os, small_english; small_english.one_thread(); "
        "print(len(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository / "benchmarks", capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "1"]


LOUD = numpy.array([0, 16384, -32768], numpy.int16)


def play(monkeypatch, name: str, **members) -> types.SimpleNamespace:
    module = types.SimpleNamespace(**members)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_moonshine_is_given_samples_within_one_and_no_search_for_pauses(
    english, monkeypatch, tmp_path
):
    told = {}

    class Transcriber:
        def __init__(self, folder, kind, options):
            told.update(folder=folder, options=options)

        def transcribe_without_streaming(self, samples, rate):
            told.update(samples=samples, rate=rate)
            return types.SimpleNamespace(lines=[types.SimpleNamespace(text=t) for t in "ab"])

    kinds = types.SimpleNamespace(TINY=0)
    folder = tmp_path / "tiny-en"
    play(
        monkeypatch,
        "moonshine_voice",
        Transcriber=Transcriber,
        ModelArch=kinds,
        get_model_path=lambda name: tmp_path / name,
    )
    folder.mkdir()
    (folder / "weights").write_bytes(b"12345")
    (folder / ".done").write_bytes(b"1")  # hidden: not of the model
    moonshine = english.recognisers.Moonshine()
    assert moonshine.size_bytes == 5 and moonshine.transcribe(LOUD) == "a b"
    assert told == {
        "folder": str(folder),
        "options": {"vad_threshold": 0},
        "samples": [0.0, 0.5, -1.0],
        "rate": 16000,
    }


def test_pocketsphinx_is_given_bytes_and_may_hear_nothing(english, monkeypatch, tmp_path):
    heard = []

    class Decoder:
        def __init__(self, samprate, loglevel):
            assert samprate == 16000

        def start_utt(self):
            heard.append("start")

        def process_raw(self, samples, full_utt):
            heard.append((samples, full_utt))

        def end_utt(self):
            heard.append("end")

        def hyp(self):
            return types.SimpleNamespace(hypstr="yes") if len(heard) == 3 else None

    play(monkeypatch, "pocketsphinx", Decoder=Decoder, get_model_path=lambda name: tmp_path / name)
    (tmp_path / "en-us/en-us").mkdir(parents=True)
    for name, size in (("en-us/mdef", 1), ("en-us.lm.bin", 2), ("cmudict-en-us.dict", 4)):
        (tmp_path / "en-us" / name).write_bytes(size * b"x")
    (tmp_path / "en-us/en-us-phone.lm.bin").write_bytes(b"not read")
    pocketsphinx = english.recognisers.Pocketsphinx()
    assert pocketsphinx.size_bytes == 7 and pocketsphinx.transcribe(LOUD) == "yes"
    assert heard == ["start", (LOUD.tobytes(), True), "end"]
    assert pocketsphinx.transcribe(LOUD) == ""


def test_faster_whisper_runs_on_one_thread_in_int8(english, monkeypatch, tmp_path):
    (tmp_path / "model.bin").write_bytes(b"123")

    class WhisperModel:
        def __init__(self, folder, **options):
            assert folder == str(tmp_path)
            assert options == {"device": "cpu", "compute_type": "int8", "cpu_threads": 1}

        def transcribe(self, samples, **options):
            assert samples.dtype == numpy.float32 and samples.tolist() == [0.0, 0.5, -1.0]
            assert options == {"language": "en", "beam_size": 5}
            return [types.SimpleNamespace(text=text) for text in ("so", "what")], None

    play(monkeypatch, "faster_whisper", WhisperModel=WhisperModel)
    folders = types.SimpleNamespace(int8=tmp_path)
    faster = english.recognisers.FasterWhisper(folders, beam=5)
    assert (faster.size_bytes, faster.transcribe(LOUD)) == (3, "so what")


def test_what_is_missing_is_named_with_its_remedy(english, monkeypatch, tmp_path):
    for name in ("moonshine_voice", "pocketsphinx", "faster_whisper"):
        monkeypatch.setitem(sys.modules, name, None)
    known = english.recognisers
    with pytest.raises(EnvironmentProblem, match="pip install --no-deps moonshine-voice==0.0.49"):
        known.Moonshine()
    with pytest.raises(EnvironmentProblem, match="pip install --no-deps pocketsphinx"):
        known.Pocketsphinx()
    folders = known.WhisperFolders(tmp_path / "none", ExitStack())
    with pytest.raises(EnvironmentProblem, match="pip install --no-deps faster-whisper"):
        known.FasterWhisper(folders, 1)
    with pytest.raises(ModelError, match=r"none: no such folder; .*--help"):
        known.TransformersWhisper(folders)


@pytest.mark.parametrize("int8", [False, True])
def test_ours_in_onnx_is_exported_for_the_time_of_the_run(english, monkeypatch, tmp_path, int8):
    from espnet_prune.decode import int8 as exporting
    from espnet_prune.export import exported as opening

    events = []

    @contextmanager
    def exported(folder, wanted):
        events.append((folder, wanted))
        (tmp_path / "model.onnx").write_bytes(b"1234")
        yield tmp_path
        events.append("gone")

    opened = types.SimpleNamespace(rate=16000, transcribe=lambda samples: "heard")
    monkeypatch.setattr(exporting, "exported", exported)
    monkeypatch.setattr(opening, "open_exported", lambda folder: opened)
    with ExitStack() as stack:
        ours = english.recognisers.OursInOnnx(Path("m"), int8, stack)
        assert (ours.size_bytes, ours.transcribe(LOUD)) == (4, "heard")
        assert events == [(Path("m"), int8)]
        opened.rate = 8000
        with pytest.raises(ModelError, match="a model of 8000 Hz"):
            english.recognisers.OursInOnnx(Path("m"), int8, stack)
    assert events[-2:] == ["gone", "gone"]


def test_ours_in_torch_is_what_save_wrote(english, system):
    ours = english.recognisers.OursInTorch(system / "model")
    files = [path for path in (system / "model").iterdir() if path.is_file()]
    assert ours.size_bytes == sum(p.stat().st_size for p in files if p.name[0] != ".")
    assert isinstance(ours.transcribe(numpy.zeros(16000, numpy.int16)), str)
