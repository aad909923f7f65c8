"""A training is saved after an epoch: the large recipes have short ones, updates as published."""

from pathlib import Path

import pytest

from espnet_prune.config import load_yaml

ROOT = Path(__file__).resolve().parents[2]
RATE = 16000
SPEEDS = (0.9, 1.0, 1.1)
HOURS = {"librispeech": 960, "librispeech_100": 100}
LONGEST_HOURS = (
    800  # of speech in an epoch; 300 of them take the published 100 h teacher 14 minutes
)


def hours_of_an_epoch(path: Path, corpus: str) -> float:
    config = load_yaml(path)
    if "num_iters_per_epoch" not in config:
        return HOURS[corpus] * sum(1 / speed for speed in SPEEDS)
    return config["num_iters_per_epoch"] * config["batch_bins"] / RATE / 3600


@pytest.mark.parametrize("corpus", HOURS)
@pytest.mark.parametrize("name", ["teacher", "prune", "finetune"])
def test_epochs_fit_into_a_job(corpus, name):
    path = ROOT / f"egs/{corpus}/l0_conformer1/conf/{name}.yaml"
    assert hours_of_an_epoch(path, corpus) < LONGEST_HOURS


def test_the_960_h_teacher_has_the_published_number_of_updates():
    recipe = load_yaml(ROOT / "egs/librispeech/l0_conformer1/conf/teacher.yaml")
    published = load_yaml(ROOT / "conf/models/conformer_512.yaml")
    passes = hours_of_an_epoch(
        ROOT / "egs/librispeech/l0_conformer1/conf/teacher.yaml", "librispeech"
    ) / (HOURS["librispeech"] * sum(1 / speed for speed in SPEEDS))
    assert passes * recipe["max_epoch"] == pytest.approx(published["max_epoch"], rel=0.02)
    assert recipe["accum_grad"] == published["accum_grad"]


def test_debug_has_few_updates_in_spite_of_it():
    assert load_yaml(ROOT / "conf/debug/overrides/teacher.yaml")["num_iters_per_epoch"] < 10
