"""The staged driver: its options, its messages, and the commands that its stages give."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from espnet_prune import cli
from espnet_prune.config import load_yaml

pytestmark = pytest.mark.timeout(300)  # the first waits for the imports
ROOT = Path(__file__).resolve().parents[2]
SYNTH = ROOT / "egs/synth/l0_conformer1/run.sh"
AN4 = ROOT / "egs/an4/l0_conformer1/run.sh"


def verb(command: str) -> str:
    """What a command does."""
    return command.split("-m espnet_prune ")[1].split()[0]


def verbs(commands: list[str]) -> list[str]:
    """The verbs of the commands, a run of equal ones once."""
    names = [verb(command) for command in commands]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_help_documents_every_option_and_stage(driver):
    process, commands = driver("--help")
    assert process.returncode == 0 and not commands
    for option in ("stage", "stop_stage", "skip_stages", "list_stages", "ngpu", "nj", "systems"):
        assert f"--{option} " in process.stdout
    assert "14  pack" in process.stdout
    assert str(SYNTH) in process.stdout


def test_help_shows_what_the_recipe_chose(driver):
    process, _ = driver("--tag", "mine", "--help")
    assert "number of BPE tokens [75]" in process.stdout
    assert "exp/TAG [mine]" in process.stdout


def test_help_of_an4_documents_its_own_option(driver):
    process, _ = driver("--help", recipe=AN4)
    assert process.returncode == 0
    assert "--an4 DIR" in process.stdout and "--stage " in process.stdout


def test_lists_fourteen_numbered_named_stages(driver):
    process, _ = driver("--list_stages")
    lines = process.stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, 15))
    assert lines[7].split()[1] == "prune"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--stag", "3"], "unknown option '--stag'; did you mean --stage?"),
        (["--nothing_like_it=3"], "unknown option '--nothing_like_it'"),
        (["stray"], "unexpected argument 'stray'"),
        (["--tag"], "--tag needs a value"),
        (["--stage", "15"], "--stage: '15' is no stage: 1 to 14"),
        (["--stop_stage", "finetunes"], "such as finetune"),
        (["--skip_stages", "2 x"], "--skip_stages: 'x' is no stage"),
        (["--stage", "5", "--stop_stage", "2"], "--stage 5 comes after --stop_stage 2"),
        (["--ngpu", "one"], "--ngpu: 'one' is not a whole number of at least 0"),
        (["--nj", "0"], "--nj: '0' is not a whole number of at least 1"),
        (["--cmd_backend", "pbs"], "--cmd_backend: 'pbs' is not local, slurm or sge"),
        (["--nodes", "0"], "--nodes: '0' is not a whole number of at least 1"),
        (["--nodes", "2"], "--nodes 2: trainings on several machines need --cmd_backend slurm"),
        (["--nodes=2", "--cmd_backend=sge"], "need --cmd_backend slurm, not sge"),
        (["--wait=no"], "--wait: 'no' is not true or false"),
        (["--list_stages=yes"], "--list_stages: 'yes' is not true or false"),
        (["--min_seconds", "abc"], "--min_seconds: 'abc' is not a number of seconds"),
        (["--max_seconds=-3"], "--max_seconds: '-3' is not a number of seconds"),
        (["--normalise", "none english"], "'none english' is not none or english"),
        (["--audio_format", "mp3"], "'mp3' is not flac, ark or keep"),
        (["--overrides", "/nowhere"], "--overrides: there is no folder '/nowhere'"),
        (["--token_type", "word"], "'word' is not bpe, char or hugging_face"),
        (
            ["--test_sets", "train_sp", "--speed_factors", "0.9 1"],
            "'train_sp' has the place of what stages 2 and 3 make",
        ),
        (["--test_sets", "dev dev_valid"], "the set 'dev_valid' has the place of what"),
        (["--speed_factors=1", "--test_sets", "train"], "'train' has the place of what"),
        (["--channel", "left"], "--channel: 'left' is not mean, or a number from 1"),
        (["--pipes", "no"], "--pipes: 'no' is not run or forbid"),
        (["--tag", "../x"], "--tag: '../x' is not a folder's name"),
        (["--tag", ".."], "--tag: '..' is not a folder's name"),
        (["--conf_dir", "/nowhere"], "/nowhere/systems.yaml is missing"),
        (["--stage", "6", "--teacher_config", "/x.yaml"], "name another by --teacher_config"),
    ],
)
def test_wrong_option_is_named(driver, places, arguments, expected):
    process, commands = driver(*places, *arguments)
    assert process.returncode == 2
    assert expected in process.stderr
    assert "--help" in process.stderr
    assert not commands


def test_unknown_system_is_named(driver, places):
    process, commands = driver(*places, "--stage", "8", "--systems", "l0_51")
    assert process.returncode == 2 and not commands
    assert "no system 'l0_51'; did you mean 'l0_50'?" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--an4", "/nowhere"], "there is no folder '/nowhere'"),
        (["--an4=/nowhere"], "there is no folder '/nowhere'"),
        (["--an4", ""], "--an4 needs a folder"),
        (["--an4="], "--an4 needs a folder"),
    ],
)
def test_missing_corpus_folder_is_named(driver, arguments, message):
    process, commands = driver(*arguments, recipe=AN4)
    assert process.returncode == 2 and not commands
    assert message in process.stderr


def test_runs_every_stage_in_order(driver, places, tmp_path):
    process, commands = driver(*places, "--speed_factors", "0.9 1.0")
    assert process.returncode == 0, process.stderr
    assert verbs(commands) == (
        ["prepare_synth", "validate_data", "perturb_speed", "format_audio", "make_tokens"]
        + ["collect_stats", "train_teacher", "decode", "score", "prune", "cut", "finetune"]
        + ["decode", "score", "decode", "score", "profile", "report", "pack"]
    )
    for n in range(1, 15):
        assert f"Stage {n}: " in process.stdout and f"Stage {n} took " in process.stdout
    assert process.stdout.splitlines()[-2] == "printed by espnet_prune report"
    assert "--train dump/train_sp --valid dump/dev" in next(c for c in commands if "_teacher" in c)
    assert "prune --system exp/base/l0_50 --ngpu 0" in next(c for c in commands if " prune " in c)
    folders = load_yaml(tmp_path / "work/exp/base/l0_50/config.yaml")["folders"]
    assert (folders["train"], folders["valid"]) == ("dump/train_sp", "dump/dev")


def test_test_sets_are_never_filtered(driver, places):
    _, commands = driver(*places, "--stage", "format", "--stop_stage", "format")
    filtered = {c.split("--source ")[1].split()[0]: "--max_seconds" in c for c in commands}
    assert filtered == {"data/train": True, "data/dev": True, "data/test": False}


def test_a_set_both_validated_on_and_scored_is_there_twice(driver, places):
    """Filtered for the training, whole for the scores."""
    sets = ["--valid_set", "dev", "--test_sets", "dev test", "--speed_factors", "1.0"]
    process, commands = driver(*places, *sets)
    assert process.returncode == 0, process.stderr
    formatted = {
        c.split("--out ")[1].split()[0]: (c.split("--source ")[1].split()[0], "--max_seconds" in c)
        for c in commands
        if " format_audio " in c
    }
    assert formatted["dump/dev_valid"] == ("data/dev", True)
    assert formatted["dump/dev"] == ("data/dev", False)
    trained = [c for c in commands if "--valid " in c]
    found = {verb(c) for c in trained}
    assert found == {"collect_stats", "train_teacher"}
    assert all("--valid dump/dev_valid " in c for c in trained)
    decoded = [c for c in commands if " decode " in c or " score " in c]
    assert decoded and not any("dev_valid" in c for c in decoded)


def test_every_verb_of_the_driver_exists(driver, places):
    _, commands = driver(*places, "--speed_factors", "0.9 1.0")
    for name in verbs(commands):
        assert name in cli.verbs(), name


def test_stages_by_number_or_name_and_skipping(driver, places):
    process, commands = driver(
        *places, "--stage=prune", "--stop_stage", "11", "--skip_stages", "9 finetune"
    )
    assert process.returncode == 0, process.stderr
    assert verbs(commands) == ["prune", "decode", "score", "decode", "score"]


def test_trainings_on_several_gpus_have_a_process_for_each(submitting):
    stages = ["--stage", "teacher", "--stop_stage", "finetune", "--systems", "l0_50"]
    process, commands = submitting(*stages, "--ngpu", "3")
    assert process.returncode == 0, process.stderr
    launched = [c for c in commands if " torchrun --standalone --nproc-per-node 3 -m " in c]
    assert [verb(command) for command in launched] == ["train_teacher", "prune", "finetune"]
    assert all(command.endswith(" --ngpu 1") for command in launched)


def test_wrong_decoding_is_refused_before_anything_runs(driver, places, tmp_path):
    (tmp_path / "conf/decode.yaml").write_text("beam_sise: 2\n")
    process, commands = driver(*places)
    assert process.returncode == 2 and not commands
    assert "decode.yaml: unknown key 'beam_sise'" in process.stderr
    assert driver(*places, "--stage", "8", "--stop_stage", "10")[0].returncode == 0


def test_overrides_are_merged_over_the_configurations(driver, places, tmp_path):
    (tmp_path / "over").mkdir()
    (tmp_path / "over/systems.yaml").write_text("systems: {own: {method: random}}\n")
    (tmp_path / "conf/teacher.yaml").write_text("max_epoch: 5\noptim_conf: {lr: 0.1, eps: 0.2}\n")
    (tmp_path / "over/teacher.yaml").write_text("optim_conf: {lr: 0.3}\n")
    process, commands = driver(
        *places, "--overrides", str(tmp_path / "over"), "--tag", "t", "--stage", "6"
    )
    assert process.returncode == 0, process.stderr
    made = tmp_path / "work/exp/t/conf"
    assert "--config exp/t/conf/teacher.yaml" in commands[0]
    assert load_yaml(made / "teacher.yaml") == {
        "max_epoch": 5,
        "optim_conf": {"lr": 0.3, "eps": 0.2},
    }
    assert [c for c in commands if "prune --system exp/t/own" in c]


def test_another_file_of_systems_leaves_the_recipe_s_own_alone(driver, places, tmp_path):
    """Two drivers may work on one tag, each with its own systems."""
    (tmp_path / "over").mkdir()
    (tmp_path / "over/systems.yaml").write_text("systems: {l0_50: {seed: 1}, l0_60: {seed: 2}}\n")
    (tmp_path / "conf/systems.yaml").write_text("systems: {l0_50: {method: l0, target: 0.5}}\n")
    others = tmp_path / "a=b.yaml"
    others.write_text("systems: {l0_60: {method: l0, target: 0.6}}\n")
    words = ["--stage", "8", "--stop_stage", "8"]
    made = tmp_path / "work/exp/base"
    driver(*places, *words)
    own = (made / "l0_50/config.yaml").read_bytes()
    words += ["--overrides", str(tmp_path / "over"), "--systems_config", str(others)]
    process, commands = driver(*places, *words)
    assert process.returncode == 0, process.stderr
    assert [c.split("--system ")[1].split()[0] for c in commands] == ["exp/base/l0_60"]
    config = load_yaml(made / "l0_60/config.yaml")
    assert (config["target"], config["seed"]) == (0.6, 2)
    assert (made / "l0_50/config.yaml").read_bytes() == own


def test_how_recordings_are_read_is_the_same_in_stages_1_and_3(driver, places):
    words = ["--channel", "2", "--pipes", "forbid", "--fix_data", "--stop_stage", "3"]
    process, commands = driver(*places, *words)
    assert process.returncode == 0, process.stderr
    assert verbs(commands) == ["prepare_synth", "fix_data", "validate_data", "format_audio"]
    readers = [c for c in commands if "prepare_synth" not in c]
    assert all("--sample_rate 16000 --pipes forbid --channel 2" in c for c in readers)
    assert "--channel" not in " ".join(driver(*places, "--stop_stage", "3")[1])


def test_a_refused_run_leaves_the_configurations_of_its_tag(driver, places, tmp_path):
    """What a stage refused is not what the tag was made with; what one took, is."""
    (tmp_path / "over").mkdir()
    words = [*places, "--overrides", str(tmp_path / "over"), "--stage", "8", "--stop_stage", "10"]
    words += ["--systems", "l0_50"]
    experiment = tmp_path / "work/exp/base"

    def give(value: int) -> None:
        for name in ("prune", "finetune"):
            (tmp_path / f"over/{name}.yaml").write_text(f"max_epoch: {value}\n")

    def epochs() -> list[int]:
        config = load_yaml(experiment / "l0_50/config.yaml")
        return [config[name]["training"]["max_epoch"] for name in ("prune", "finetune")]

    give(1)
    assert driver(*words)[0].returncode == 0
    assert epochs() == [1, 1]
    give(2)
    assert driver(*words, FAIL_ON="espnet_prune prune ")[0].returncode == 1
    assert epochs() == [1, 1]
    assert driver(*words, FAIL_ON="espnet_prune finetune ")[0].returncode == 1
    assert epochs() == [2, 2]  # not begun: nothing was finetuned with the old one
    (experiment / "l0_50/finetune").mkdir()
    give(3)
    assert driver(*words, FAIL_ON="espnet_prune finetune ")[0].returncode == 1
    assert epochs() == [2, 2]
    assert driver(*words)[0].returncode == 0
    assert epochs() == [3, 3]
    assert sorted(path.name for path in experiment.iterdir()) == ["conf", "l0_50", "log"]


def test_configurations_that_no_stage_took_are_as_they_were(driver, places, tmp_path):
    assert driver(*places, "--stage", "7", "--stop_stage", "7")[0].returncode == 0
    made = tmp_path / "work/exp/base/conf/decode.yaml"
    before = made.read_text()
    (tmp_path / "over").mkdir()
    (tmp_path / "over/decode.yaml").write_text("beam_size: 3\n")
    words = [*places, "--overrides", str(tmp_path / "over")]
    assert driver(*words, "--stage", "9", "--stop_stage", "9")[0].returncode == 0
    assert made.read_text() == before
    assert driver(*words, "--stage", "7", "--stop_stage", "7")[0].returncode == 0
    assert load_yaml(made)["beam_size"] == 3


def test_what_a_killed_run_left_is_put_back(driver, places, tmp_path):
    words = [*places, "--stage", "9", "--stop_stage", "9", "--systems", "l0_50"]
    assert driver(*words)[0].returncode == 0
    experiment = tmp_path / "work/exp/base"
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = experiment / f".before.{socket.gethostname()}.{ended.pid}"
    for name in ("conf/decode", "removed/config"):
        (left / name).parent.mkdir(parents=True)
        (left / f"{name}.yaml").write_text("beam_size: 7\n")
    assert driver(*words)[0].returncode == 0
    assert load_yaml(experiment / "conf/decode.yaml") == {"beam_size": 7}
    assert sorted(path.name for path in experiment.iterdir()) == ["conf", "l0_50", "log"]


def test_override_that_nothing_reads_is_an_error(driver, places, tmp_path):
    (tmp_path / "over").mkdir()
    (tmp_path / "over/teecher.yaml").write_text("max_epoch: 1\n")
    process, commands = driver(*places, "--overrides", str(tmp_path / "over"))
    assert process.returncode == 2 and not commands
    assert "no configuration 'teecher' (did you mean 'teacher'?)" in process.stderr


def test_chosen_systems_and_sets(driver, places):
    _, commands = driver(
        *places, "--stage", "11", "--stop_stage", "11", "--systems", "l0_50", "--test_sets", "a b"
    )
    assert len(commands) == 4
    assert commands[0].split("--out ")[1].split()[0] == "exp/base/l0_50/decode/a"


def test_failure_names_stage_log_and_remedy(driver, places):
    process, commands = driver(*places, "--stage", "8", FAIL_ON="espnet_prune cut")
    assert process.returncode == 1
    assert verbs(commands) == ["prune", "cut"]
    assert "stage 9 (cut) failed" in process.stderr
    assert "exp/base/log/09_cut.log" in process.stderr
    assert "same command" in process.stderr


def test_a_user_s_error_is_not_followed_by_advice_to_repeat_it(driver, places):
    process, _ = driver(*places, "--stage", "8", FAIL_ON="espnet_prune cut", FAIL_STATUS="2")
    assert process.returncode == 2
    assert "stage 9 (cut) failed" in process.stderr
    assert "same command" not in process.stderr


def test_gpus_that_are_not_there_are_missed_before_anything_runs(driver, places):
    process, commands = driver(*places, "--ngpu", "999")
    assert process.returncode == 2 and not commands
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: --ngpu 999: PyTorch sees ")


def test_what_runs_at_a_time_is_said_with_its_reason(driver, places):
    process, _ = driver(*places, "--stop_stage", "1", OMP_NUM_THREADS="1")
    processors = len(os.sched_getaffinity(0))
    assert f"{processors} at a time (this machine's processors)" in process.stdout
    process, _ = driver(*places, "--stop_stage", "1", "--nj", "3")
    assert "3 at a time (--nj)" in process.stdout


def test_systems_are_trained_at_a_time(driver, places, tmp_path):
    """By the real submit.py, with a Python that notes what it is to do."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text(
        f"""#!/usr/bin/env bash
if [[ "$*" != *" --system "* ]]; then exec {sys.executable} "$@"; fi
echo "$OMP_NUM_THREADS $*" >> "$RECORD"
[[ "$*" != *l0_50* ]] || exit "${{STATUS:-0}}"
"""
    )
    python.chmod(0o755)
    here = {
        "PATH": f"{python.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "3",
        "cuda_cmd": "submit.py --backend local",
    }
    words = [*places, "--train_nj", "2", "--tag", "JOB", "--stage", "prune", "--stop_stage"]
    process, commands = driver(*words, "prune", **here)
    assert process.returncode == 0, process.stderr
    assert sorted(commands) == [
        f"1 -m espnet_prune prune --system exp/JOB/{name} --ngpu 0"
        for name in ("l0_50", "magnitude_50")
    ]
    assert "3 threads (OMP_NUM_THREADS), shared by 2 systems at a time" in process.stdout
    assert (tmp_path / "work/exp/JOB/log/08_prune.2.log").is_file()
    process, commands = driver(*words, "prune", STATUS="1", **here)
    assert process.returncode == 1 and "08_prune.1.log" in process.stderr
    assert "its logs are named above" in process.stderr
    assert sum("magnitude_50" in command for command in commands) == 1  # it isn't given up


def test_systems_are_trained_beside_each_other_by_a_cluster_itself(submitting):
    process, commands = submitting("--stage", "prune", "--stop_stage", "prune", "--train_nj", "2")
    assert process.returncode == 0, process.stderr
    assert ["--system exp/base/l0_50 " in commands[0], "JOB=" in commands[0]] == [True, False]


def test_paths_with_spaces(driver, tmp_path):
    corpus = tmp_path / "my an4"
    corpus.mkdir()
    process, commands = driver(
        "--an4",
        "my an4",
        "--stop_stage",
        "1",
        "--work_dir",
        str(tmp_path / "my work"),
        recipe=AN4,
    )
    assert process.returncode == 0, process.stderr
    assert str(corpus).replace(" ", "\\ ") in commands[0]
    assert (tmp_path / "my work").is_dir()


def after(command: str) -> list[int]:
    """Numbers of the submissions that a command has to wait for."""
    return [int(part.split()[0].rsplit("/", 1)[1]) for part in command.split("--after ")[1:]]


def test_a_submitted_recipe_waits_for_what_it_needs_and_no_more(submitting):
    stages = ["--stage", "6", "--stop_stage", "11"]
    process, commands = submitting(*stages, "--test_sets", "a b", "--nj", "4")
    assert process.returncode == 0, process.stderr
    names = [verb(c) for c in commands]
    number = {n: i for i, n in enumerate(names, 1)}
    assert after(commands[0]) == []
    decodes = [i for i, command in enumerate(commands, 1) if " --part JOB/4" in command]
    assert after(commands[decodes[0] - 1]) == after(commands[decodes[1] - 1]) == [1]
    scores = [i for i, name in enumerate(names, 1) if name == "score"]
    assert all(after(commands[i - 1]) == [i - 1] for i in scores)
    prunes = [i for i, name in enumerate(names, 1) if name == "prune"]
    assert len(prunes) == 2  # beside each other, after the whole stage before
    assert {tuple(after(commands[i - 1])) for i in prunes} == {tuple(range(2, 8))}
    assert after(commands[number["cut"] - 1]) == prunes
    assert "--wait false" in commands[0] and "06_teacher.1.log" in commands[0]
    assert "espnet-prune status" in process.stdout


def test_what_is_taken_from_a_run_waits_for_it_alone(submitting, tmp_path):
    """The rest of the stage goes on beside it; finetuning is beside each other again."""
    run = "run: {method: l0, target: 0.7, ladder: [0.3, 0.5]}"
    taken, other = "taken_from: run, target", "other: {method: random}"
    rows = f"a: {{{taken}: 0.3}}, {run}, {other}, b: {{{taken}: 0.5}}"
    (tmp_path / "conf/systems.yaml").write_text(f"systems: {{{rows}}}\n")
    process, commands = submitting("--stage", "prune", "--stop_stage", "finetune")
    assert process.returncode == 0, process.stderr
    trained = [c for c in commands if verb(c) != "cut"]
    named = [c.split("--system exp/base/")[1].split()[0] for c in trained]
    assert named == ["run", "a", "b", "other"] * 2
    waits = [after(command) for command in commands]
    assert waits == [[], [1], [2], [], [1, 2, 3, 4], *[[5]] * 4]


def test_what_is_made_of_another_comes_when_that_is_finished(submitting, tmp_path):
    mine = "mine: {of: plain, bits: 8}"
    plain = "plain: {method: unpruned, target: 0.0}"
    (tmp_path / "conf/systems.yaml").write_text(f"systems: {{{mine}, {plain}}}\n")
    process, commands = submitting("--stage", "prune", "--stop_stage", "score", "--test_sets", "a")
    assert process.returncode == 0, process.stderr
    made = [(verb(c), re.search(r"--(?:system|model) exp/base/(\w+)", c)[1]) for c in commands]
    trained = [
        (stage, name) for name in ("plain", "mine") for stage in ("prune", "cut", "finetune")
    ]
    scored = [
        (stage, name) for name in ("mine", "plain") for stage in ("decode", "decode", "score")
    ]
    assert made == [*trained, *scored]
    waits = [after(command) for command in commands]
    assert waits[:6] == [[], [1], [2], [3], [3, 4], [3, 4, 5]]
    assert waits[6] == waits[9] == [3, 4, 5, 6]


def test_split_work_is_submitted_as_arrays_that_the_next_command_puts_together(submitting):
    words = ["--speed_factors", "0.9 1.0", "--nj", "4", "--tag", "JOB_1"]
    process, commands = submitting("--stage", "speed", "--stop_stage", "7", *words)
    assert process.returncode == 0, process.stderr
    arrays = [i for i, command in enumerate(commands, 1) if "=1:4 " in command]
    names = [verb(commands[i - 1]) for i in arrays]
    assert names == [*["format_audio"] * 3, "decode"]
    for i in arrays:
        share, whole = commands[i - 1].split(" python ")[1], commands[i].split(" python ")[1]
        assert share == f"{whole} --part JOB__/4"  # not what is part of the tag
        assert after(commands[i]) == [i]
    decode = commands[arrays[-1] - 1]
    assert "JOB__=1:4 exp/JOB_1/log/07_score_teacher.1.JOB__.log" in decode
    assert "job 2, log exp/JOB_1/log/03_format.1.JOB__.log" in process.stdout
    scores = next(i for i, command in enumerate(commands, 1) if " score " in command)
    assert after(commands[scores - 1]) == [arrays[-1] + 1]


@pytest.mark.parametrize(("ngpu", "processes", "each"), [("0", "1", "0"), ("4", "4", "1")])
def test_trainings_on_several_nodes_are_launched_on_each(submitting, ngpu, processes, each):
    stages = ["--stage", "teacher", "--stop_stage", "finetune", "--systems", "l0_50"]
    process, commands = submitting(*stages, "--nodes", "2", "--ngpu", ngpu)
    assert process.returncode == 0, process.stderr
    start = f" -m espnet_prune nodes --nodes 2 --processes {processes} "
    launched = [c.split(start)[1] for c in commands if start in c]
    assert [words.split()[0] for words in launched] == ["train_teacher", "prune", "finetune"]
    assert all(words.endswith(f" --ngpu {each}") for words in launched)


def test_the_report_comes_last_when_it_was_waited_for(submitting, tmp_path):
    (tmp_path / "work/exp/base/log").mkdir(parents=True)
    (tmp_path / "work/exp/base/log/13_report.log").write_text("that of an earlier run\n")
    process, _ = submitting("--stage", "report", "--wait")
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-2] == "printed in job 1"
    process, commands = submitting("--stage", "report", "--wait", "--compare_with", "l0_50")
    assert process.returncode == 0, process.stderr
    number = 1 + sum(" report " not in c for c in commands if "log/13_report" in c)
    assert number > 1 and process.stdout.splitlines()[-2] == f"printed in job {number}"


def test_a_refused_submission_ends_the_command(submitting):
    process, commands = submitting("--stage", "8", FAIL_ON="espnet_prune cut")
    assert process.returncode == 2
    assert verbs(commands) == ["prune", "cut"]
    assert "Submitted" not in process.stdout


def test_commands_of_the_back_ends_carry_their_options(driver, places, tmp_path, monkeypatch):
    """Without exported commands, submit.py itself: without Slurm's programs it says so."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/bin"
    words = [*places, "--cmd_backend", "slurm", "--stage", "5", "--stop_stage", "5"]
    (tmp_path / "conf/slurm.conf").write_text("command no-such-sbatch\noption num_threads=*\n")
    empty = dict.fromkeys(("train_cmd", "decode_cmd", "cuda_cmd"), "")
    process, _ = driver(*words, PATH=path, **empty)
    assert process.returncode == 2
    assert "no-such-sbatch: no such program" in process.stderr
    assert "Submitted" not in process.stdout


def test_what_is_compared_with_has_to_be_there_before_anything_is_trained(driver, places):
    words = [*places, "--systems", "l0_50", "--compare_with"]
    process, commands = driver(*words, "unpruned", "--stage", "8")
    assert process.returncode == 2 and not commands
    assert "--compare_with: 'unpruned' is not among the systems (l0_50)" in process.stderr
    process, commands = driver(*words, "unpruned? l0_50", "--stage", "13", "--stop_stage", "13")
    assert process.returncode == 0, process.stderr
    assert "not compared with unpruned" in process.stderr
    assert commands[0].endswith("--compare_with exp/base/l0_50")


def test_without_a_report_nothing_has_to_be_there_to_compare_with(driver, places):
    words = ["--compare_with", "unpruned", "--stage", "cut", "--stop_stage", "cut"]
    process, commands = driver(*places, *words)
    assert process.returncode == 0, process.stderr
    assert verbs(commands) == ["cut"]


def test_configurations_that_queued_jobs_read_are_not_overwritten(submitting, tmp_path):
    from espnet_prune.cluster.job import Job, record, write_id

    folder = tmp_path / "work/exp/base/log/.jobs/queued"
    record(Job("slurm", "x.log", ("true",), str(tmp_path)), folder)
    write_id(folder, "7")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "squeue").write_text("#!/bin/sh\necho 7 PENDING queued\n")
    (programs / "squeue").chmod(0o755)
    (tmp_path / "over").mkdir()
    (tmp_path / "over/teacher.yaml").write_text("max_epoch: 1\n")
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["--stage", "6", "--overrides", str(tmp_path / "over")]
    process, commands = submitting(*words, PATH=path)
    assert process.returncode == 2 and not commands
    assert "still queued or running: 7" in process.stderr
    assert not (tmp_path / "work/exp/base/conf").exists()


def test_a_submission_of_nothing_says_so(submitting):
    process, commands = submitting("--stage", "speed", "--stop_stage", "speed")
    assert process.returncode == 0, process.stderr
    assert not commands and "exp/base: no jobs" in process.stdout
