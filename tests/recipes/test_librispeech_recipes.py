"""LibriSpeech's recipes: their own options, and a whole one, by --debug on generated speech."""

import json
import os
import subprocess
import zipfile
from pathlib import Path

import mini_recipe
import pytest
import yaml

from espnet_prune.surgery import load, plan_of

ROOT = Path(__file__).resolve().parents[2]
L0_RECIPES = ("librispeech", "librispeech_100", "librispeech_10")
PINCH_RECIPES = ("librispeech_100/pinch_wav2vec2_1", "librispeech_100/pinch_hubert1")
WHISPER_RECIPE = "librispeech_10/pinch_whisper1"


def run(recipe: str, *arguments: str, cwd: Path = ROOT, **environment: str):
    """Runs a corpus's L0 recipe, or the one named, in the present environment."""
    folder = recipe if "/" in recipe else f"{recipe}/l0_conformer1"
    return subprocess.run(
        [ROOT / f"egs/{folder}/run.sh", *arguments],
        cwd=cwd,
        env={**mini_recipe.environment(), "ESPNET_PRUNE_CURRENT_ENV": "1", **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def first_stage(tmp_path):
    """Calls a recipe's first stage with its command noted and not run; returns the note."""
    noting = tmp_path / "note.sh"
    noting.write_text('#!/usr/bin/env bash\nshift\necho "$*" >> "$NOTE"\n')
    noting.chmod(0o755)

    def call(recipe: str, *arguments: str) -> list[str]:
        note = tmp_path / "note"
        commands = dict.fromkeys(("train_cmd", "decode_cmd"), str(noting))
        options = [*arguments, "--work_dir", str(tmp_path / "work"), "--stop_stage", "3"]
        done = run(recipe, *options, cwd=tmp_path, NOTE=str(note), **commands)
        assert done.returncode == 0, done.stderr
        return note.read_text().splitlines()

    return call


@pytest.mark.parametrize("recipe", (*L0_RECIPES, *PINCH_RECIPES, WHISPER_RECIPE))
def test_help_documents_the_recipes_own_options(recipe):
    done = run(recipe, "--help")
    assert done.returncode == 0
    for option in ("librispeech DIR", "mirror URL", "skip_bad", "debug", "overrides", "stage"):
        assert f"--{option}" in done.stdout


def test_corpus_given_relative_to_where_the_user_is(tmp_path, first_stage):
    (tmp_path / "my corpus").mkdir()
    options = ["--librispeech", "my corpus", "--skip_bad", "--nj", "1"]
    commands = first_stage("librispeech", *options)
    assert f"--librispeech {tmp_path}/my\\ corpus" in commands[0]
    assert "--skip_bad" in commands[0] and "$conf_dir/data.yaml" in commands[0]
    assert '--nj "$nj"' in commands[0]
    assert "data/train_960 data/dev data/dev_clean" in commands[1]
    assert "--factors 0.9 1.0 1.1" in commands[2]
    assert all("--format keep" in c for c in commands if "format_audio" in c)


def test_files_are_seen_from_where_the_user_is_first(tmp_path):
    recipe, note = "librispeech_10/l0_nemo_conformer1", tmp_path / "note"
    (tmp_path / "my model.nemo").touch()
    noting = tmp_path / "note.sh"
    noting.write_text(f'#!/usr/bin/env bash\nshift\nprintf "%s|" "$@" >> "{note}"\n')
    noting.chmod(0o755)
    options = ("--teacher", "my model.nemo", "--work_dir", str(tmp_path / "work"))
    stages = ("--stage", "4", "--stop_stage", "4")
    done = run(recipe, *options, *stages, cwd=tmp_path, train_cmd=str(noting))
    assert done.returncode == 0, done.stderr
    assert f"--teacher|{tmp_path}/my model.nemo|" in note.read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/finetune.yaml").write_text("max_epoch: 4")
    for overrides, status in (("mine", 0), ("neither", 2)):
        stages = ("--stage", "4", "--stop_stage", "4", "--overrides", overrides)
        done = run(recipe, *options, *stages, cwd=tmp_path, train_cmd=str(noting))
        assert done.returncode == status, (overrides, done.stderr)


def test_without_a_corpus_it_is_downloaded_from_the_mirror(first_stage):
    commands = first_stage("librispeech_100", "--mirror=http://m.invalid/12")
    assert "--mirror http://m.invalid/12" in commands[0] and "--librispeech" not in commands[0]


def test_debug_is_below_its_own_folder_and_users_options_win(tmp_path, first_stage):
    commands = first_stage("librispeech_10", "--debug", "--speed_factors", "1.1 1.0")
    assert "generate_librispeech --out downloads/generated" in commands[0]
    assert "conf/debug/generated.yaml" in commands[0]
    assert "--source data/train --out data/train_sp" in commands[2]
    assert "--factors 1.1 1.0" in commands[2]
    assert (tmp_path / "work/exp/base/conf/teacher.yaml").is_file()


@pytest.mark.parametrize(
    ("overrides", "size"),
    [("conf/transducer/", 24), ("../../../conf/debug/transducer", 24), (None, None)],
)
def test_debug_takes_the_tiny_one_of_what_overrides_name(tmp_path, first_stage, overrides, size):
    named = ["--overrides", overrides] if overrides else []
    first_stage("librispeech_100", "--debug", *named)
    config = yaml.safe_load((tmp_path / "work/exp/base/conf/teacher.yaml").read_text())
    assert config["decoder_conf"].get("hidden_size") == size
    assert config["max_epoch"] == 2


def test_debug_on_a_given_corpus_takes_its_chapters(tmp_path, first_stage):
    commands = first_stage("librispeech", "--debug", "true", "--librispeech", str(tmp_path))
    assert "conf/debug/librispeech.yaml" in commands[0]
    assert f"--librispeech {tmp_path}" in commands[0] and "generate" not in commands[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--librispeech", "/nowhere"], "--librispeech: there is no folder '/nowhere'"),
        (["--librispeech"], "--librispeech needs a value"),
        (["--librispeech", ""], "--librispeech needs a value"),
        (["--mirror="], "--mirror needs a value"),
        (["--debug=maybe"], "--debug: 'maybe' is not true or false"),
        (["--librispeec", "x"], "unknown option '--librispeec'"),
    ],
)
def test_wrong_option_is_named(arguments, message):
    done = run("librispeech_100", *arguments)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.timeout(1500)
def test_debug_runs_every_stage(tmp_path, warm):
    """On the corpus that LIBRISPEECH names, if it does, as CI may; else on generated speech."""
    given = os.environ.get("LIBRISPEECH")
    corpus = ["--librispeech", given] if given else []
    options = ["--debug", *corpus, "--work_dir", str(tmp_path), "--nj", "2"]
    done = run("librispeech", *options, **warm.environment(mini_recipe.environment()))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    base = tmp_path / "exp/base"
    report = json.loads((base / "report/report.json").read_text())
    assert [s["name"] for s in report["systems"]] == ["teacher", "l0_50", "magnitude_50"]
    for system in report["systems"]:
        assert set(system["wer"]) == {"test/greedy", "test/joint"}
        assert system["rtf"] and system["macs_per_second"] > 0
        if system["name"] != "teacher":
            assert system["sparsity"]["value"] == pytest.approx(0.5, abs=0.005)
            assert (base / f"pack/{system['name']}.zip").stat().st_size > 0
    entry = (tmp_path / "dump/test/wav.scp").read_text().split()[1]
    assert entry.endswith(".flac") and "dump" not in entry  # kept where the corpus has it


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_debug_of_a_transducer_runs_every_stage(tmp_path, warm):
    options = ["--debug", "--overrides", "conf/transducer", "--work_dir", str(tmp_path)]
    done = run("librispeech_100", *options, **warm.environment(mini_recipe.environment()))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    base = tmp_path / "exp/base"
    report = json.loads((base / "report/report.json").read_text())
    systems = {system["name"]: system for system in report["systems"]}
    assert [*systems] == ["teacher", "l0_50", "magnitude_50"]
    for name, system in systems.items():
        assert set(system["wer"]) == {"test/greedy", "test/joint"}
        assert {"encoder", "ctc_greedy", "joint"} <= set(system["rtf"])
        if name != "teacher":
            size = system["params"]
            gone = {part: size[part]["dense"] - size[part]["kept"] for part in size}
            assert gone["encoder"] + gone["decoder"] == gone["total"] == gone["prunable"]
            model = load(unzipped(base / f"pack/{name}.zip", tmp_path / name))
            assert model.use_transducer_decoder and plan_of(model) is not None
            assert (base / f"pack/{name}_espnet.zip").stat().st_size > 0


def unzipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as packed:
        packed.extractall(folder)
    return folder


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "recipe", [PINCH_RECIPES[0], pytest.param(PINCH_RECIPES[1], marks=pytest.mark.slow)]
)
def test_debug_of_a_pretrained_model_runs_every_stage(tmp_path, warm, recipe):
    options = ["--debug", "--work_dir", str(tmp_path), "--nj", "2"]
    done = run(recipe, *options, **warm.environment(mini_recipe.environment()))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    base = tmp_path / "exp/base"
    systems = {
        s["name"]: s for s in json.loads((base / "report/report.json").read_text())["systems"]
    }
    assert len(systems) == 4
    for name, system in systems.items():
        assert set(system["wer"]) == {"test/greedy"}
        assert set(system["speedup"]) >= {"encoder", "ctc_greedy"} and "joint" not in system["rtf"]
        if name.startswith("pinch"):
            assert system["updates"] == {"prune": 20, "finetune": 0}
        if "weights" in name:
            size = json.loads((base / name / "system.json").read_text())["weights_bytes"]
            assert size["kept"] < 0.9 * size["dense"]


@pytest.mark.timeout(1500)
def test_debug_of_whisper_runs_every_stage(tmp_path, warm):
    options = ["--debug", "--whisper", "random", "--work_dir", str(tmp_path), "--nj", "2"]
    done = run(WHISPER_RECIPE, *options, **warm.environment(mini_recipe.environment()))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "exp/base/report/report.json").read_text())
    systems = {s["name"]: s for s in report["systems"]}
    assert set(systems) == {"teacher", "unpruned", "pinch_30", "pinch_weights_30"}
    for name, system in systems.items():
        score = system["wer"]["test/greedy"]
        assert "EnglishTextNormalizer" in score["normalisation"]
        compared = [] if name in ("teacher", "unpruned") else ["unpruned"]
        assert [*(score["p_vs"] or ())] == compared


def test_whisper_is_fetched_before_the_data_is_prepared(tmp_path, first_stage):
    (tmp_path / "my whisper").mkdir()
    options = ["--whisper", "my whisper", "--librispeech", str(tmp_path)]
    commands = first_stage(WHISPER_RECIPE, *options)
    assert (
        f"get_whisper --out downloads/whisper --whisper {tmp_path}/my\\ whisper &&" in commands[0]
    )
    assert "prepare_librispeech" in commands[0]
    for words in (["--whisper"], ["--whisper", ""], ["--whisper="]):
        done = run(WHISPER_RECIPE, *words)
        assert done.returncode == 2 and "--whisper needs a value" in done.stderr
