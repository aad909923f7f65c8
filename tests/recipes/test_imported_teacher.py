"""The driver from an imported teacher to a report: its tokens, kept outputs, refitting."""

import json
import subprocess

import mini_recipe
import pytest
import tiny_feature_readers
import tiny_nemo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
TRAINING = """\
batch_bins: 120000
num_iters_per_epoch: 2
max_epoch: 2
best_model_criterion: [[valid, loss_label, min]]
"""
METHOD = "method: {distillation: {keep_teacher_outputs: true}}\n"
SYSTEMS = """\
systems:
  fisher: {method: fisher, target: 0.4, options: {refit: {utterances: 4}}}
  l0: {method: l0_distill, target: 0.4, options: {refit: {utterances: 4}}}
"""


# which teacher, in which case it was trained, and what its tokens are
TEACHERS = [("nemo", "lower", "bpe"), ("parakeet", "lower", "bpe"), ("bert", "upper", "char")]


def write_teacher(folder, name: str):
    """What ``--teacher`` takes, in a folder."""
    if name == "nemo":
        archive = folder / "tiny.nemo"
        return tiny_nemo.write_archive(archive, tiny_nemo.configuration(), tiny_nemo.weights())
    tiny_feature_readers.write_folder(folder / name, name)
    return folder / name


@pytest.mark.parametrize("kind, case, tokens", TEACHERS)
def test_every_stage_takes_an_imported_teacher(kind, case, tokens, tmp_path, repository):
    mini_recipe.write_whole_recipe(tmp_path, repository)
    conf = tmp_path / "conf"
    (conf / "teacher.yaml").unlink()
    for name in ("prune", "finetune"):
        base = f"base: {repository}/conf/{name}.yaml\n"
        (conf / f"{name}.yaml").write_text(base + TRAINING + METHOD)
    (conf / "systems.yaml").write_text(SYSTEMS)
    (conf / "decode.yaml").write_text("modes: [greedy]\n")
    teacher = write_teacher(tmp_path, kind)
    command = mini_recipe.driver_command(tmp_path, repository)
    options = ["--teacher", str(teacher), "--text_case", case, "--speed_factors", "1.0"]
    done = subprocess.run(
        [*command, *options, "--token_type", tokens, "--stop_stage", "13"],
        env={**mini_recipe.environment(), "ESPNET_PRUNE_CURRENT_ENV": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "exp/base/report/report.json").read_text())
    assert [s["name"] for s in report["systems"]] == ["teacher", "fisher", "l0"]
    assert {len(s["wer"]) for s in report["systems"]} == {1}
    for name in ("fisher", "l0"):
        record = json.loads((tmp_path / f"exp/base/{name}/system.json").read_text())
        assert abs(record["sparsity"]["value"] - 0.4) <= 0.005
