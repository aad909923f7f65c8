"""The driver with commands that are noted, and with a scheduler that is played."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SYNTH = Path(__file__).resolve().parents[2] / "egs/synth/l0_conformer1/run.sh"
SYSTEMS = "systems: {l0_50: {method: l0_distill}, magnitude_50: {method: magnitude}}\n"
COUNTED = "num_iters_per_epoch: 3\nmax_epoch: 4\n"
CONFIGS = {
    "teacher": COUNTED,
    "prune": COUNTED,
    "finetune": COUNTED,
    "decode": "modes: [greedy]\n",
    "profile": "repeats: 1\n",
    "systems": SYSTEMS,
}
# Stands in for utils/submit.py: notes the command, does not run it, and fails where told to.
RECORDER = """#!/usr/bin/env bash
log=$1
shift
mkdir -p "${log%/*}"
printf '# 2026-01-01 00:00:00 command\nprinted by %s\n' "${*:3:2}" >> "$log"
echo "$*" >> "$RECORD"
[[ -z ${FAIL_ON:-} || "$*" != *"$FAIL_ON"* ]] || exit "${FAIL_STATUS:-1}"
"""


@pytest.fixture
def driver(tmp_path: Path, warm):
    """Calls a recipe whose commands are noted, not run; returns the process and them."""
    recorder = tmp_path / "recorder.sh"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    (tmp_path / "conf").mkdir()
    for name, text in CONFIGS.items():
        (tmp_path / f"conf/{name}.yaml").write_text(text)
    record = tmp_path / "record"

    def call(*arguments: str, recipe: Path = SYNTH, cwd: Path = tmp_path, **environment: str):
        record.write_text("")
        first = 2 if "--real" in arguments else 0  # which comes before all others
        commands = {name: str(recorder) for name in ("train_cmd", "decode_cmd", "cuda_cmd")}
        path = f"{warm.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        process = subprocess.run(
            [recipe, *arguments[:first], "--train_nj", "1", *arguments[first:]],
            cwd=cwd,
            env=os.environ
            | {"RECORD": str(record), "ESPNET_PRUNE_CURRENT_ENV": "1", "PATH": path}
            | commands
            | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return process, record.read_text().splitlines()

    return call


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    return ["--conf_dir", str(tmp_path / "conf"), "--work_dir", str(tmp_path / "work")]


# Stands in for utils/submit.py with a scheduler: notes the command, prints a submission's folder.
SUBMITTER = """#!/usr/bin/env bash
folder=$(mktemp -d "$JOBS/XXXX")
echo "$*" >> "$RECORD"
number=$(wc -l < "$RECORD")
[[ -z ${FAIL_ON:-} || "$*" != *"$FAIL_ON"* ]] || exit 2
mv "$folder" "$JOBS/$number"
echo "$number" > "$JOBS/$number/id"
echo "$JOBS/$number"
for word; do if [[ $word == *.log ]]; then break; fi; done
mkdir -p "${word%/*}"
printf '%s\\n' '# 2026-01-01 00:00:00 n1: x' "printed in job $number" '# ended after 1 s' > "$word"
"""


@pytest.fixture
def submitting(driver, places, tmp_path):
    """The driver with a scheduler that is played; returns the process and the commands."""
    program = tmp_path / "submitter.sh"
    program.write_text(SUBMITTER)
    program.chmod(0o755)
    (tmp_path / "jobs").mkdir()
    commands = {name: str(program) for name in ("train_cmd", "decode_cmd", "cuda_cmd")}

    def call(*arguments, **environment):
        words = [*places, "--cmd_backend", "slurm", *arguments]
        return driver(*words, JOBS=str(tmp_path / "jobs"), **commands, **environment)

    return call
