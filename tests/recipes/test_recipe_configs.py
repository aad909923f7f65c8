"""Every configuration of every recipe is read strictly, with every folder of overrides too."""

from pathlib import Path

import pytest

from espnet_prune.config import load_yaml, to_dataclass
from espnet_prune.data.librispeech import read_corpus
from espnet_prune.data.librispeech_layout import read_chapter_list
from espnet_prune.data.synth import Corpus, check
from espnet_prune.score.timing import ProfileConfig
from espnet_prune.train.recipe import Recipe, read_recipe
from espnet_prune.train.resolve import resolve
from espnet_prune.train.system_config import SystemConfig
from espnet_prune.train.systems import read_row

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("systems", "teacher", "prune", "finetune", "decode", "profile")
RECIPES = sorted(path.parent for path in ROOT.glob("egs/*/*/run.sh"))
DEBUG = {"l0": "overrides", "pinch": "ssl", "pinch_whisper1": "whisper"}


def variants() -> list[tuple[Path, Path | None]]:
    """Recipes, each alone, with its own folders of overrides, and with those of --debug."""
    found: list[tuple[Path, Path | None]] = []
    for recipe in RECIPES:
        folders = [p for p in sorted((recipe / "conf").iterdir()) if any(p.glob("*.yaml"))]
        kind = DEBUG.get(recipe.name) or DEBUG[recipe.name.split("_")[0]]
        debug = [ROOT / "conf/debug" / kind] if "librispeech" in str(recipe) else []
        debug += [
            ROOT / "conf/debug" / p.name for p in folders if (ROOT / "conf/debug" / p.name).is_dir()
        ]
        found += [(recipe, over) for over in (None, *folders, *debug)]
    return found


def identify(value: Path | None) -> str:
    return "own" if value is None else str(value.relative_to(ROOT)).replace("/l0_conformer1", "")


def read(conf: Path, over: Path | None, **others: Path) -> Recipe:
    """A recipe's files, merged."""
    files = {name: others.get(name, conf / f"{name}.yaml") for name in NAMES}
    return read_recipe(files, over)


def resolved(recipe: Recipe) -> dict[str, SystemConfig]:
    """All systems of a recipe."""
    folders = dict.fromkeys(("train", "valid", "tokens", "stats"), "folder")
    return {name: resolve(recipe, Path("exp"), folders, name) for name in recipe.systems}


@pytest.mark.parametrize(("recipe", "over"), variants(), ids=identify)
def test_all_are_read_strictly(recipe, over):
    from espnet_prune.decode.decode_config import DecodeConfig
    from espnet_prune.train.options import check_training_config
    from espnet_prune.train.teacher_task import TeacherTask

    merged = read(recipe / "conf", over)
    if "teacher" in merged.values:
        teacher = check_training_config(TeacherTask, merged.values["teacher"], "teacher.yaml")
        encoders = {"l0_conformer1": "conformer", "pinch_whisper1": "whisper_hf"}
        assert teacher["encoder"] == encoders.get(recipe.name, "ssl")
    else:
        assert "--teacher" in (recipe / "run.sh").read_text()
    for config in resolved(merged).values():
        assert config.prune.updates > 0 and config.finetune.updates > 0
        saved, epoch = config.prune.updates, config.finetune.updates_an_epoch
        assert saved % epoch == 0, "saved updates couldn't be spent on whole epochs"
    for path in sorted((recipe / "conf").glob("*.yaml")):
        if over is None and "systems" in load_yaml(path):
            assert resolved(read(recipe / "conf", None, systems=path))
    to_dataclass(DecodeConfig, merged.values["decode"], "decode.yaml")
    to_dataclass(ProfileConfig, merged.values["profile"], "profile.yaml")


@pytest.mark.parametrize(
    ("over", "systems"),
    [
        (over.parent, systems)
        for over in sorted(ROOT.glob("egs/*/*/conf/*/systems.yaml"))
        for systems in sorted((ROOT / "conf/systems").glob("*.yaml"))
    ],
    ids=identify,
)
def test_overrides_change_the_systems_that_another_file_has(over, systems):
    """What they change of others is left out; a row that lacks its method would be refused."""
    made = read(over.parent, over, systems=systems).systems
    there = load_yaml(systems)["systems"]
    rows = load_yaml(over / "systems.yaml")["systems"]
    assert made.keys() == there.keys() | {n for n, row in rows.items() if "method" in row}
    for name in made:
        assert read_row(made, name, "systems.yaml").method


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("egs/librispeech*/*/conf/data.yaml"), ROOT / "conf/debug/librispeech.yaml"],
    ids=identify,
)
def test_sets_and_their_lists_of_chapters(path):
    corpus = read_corpus(path)
    for entry in corpus.sets.values():
        lists = [read_chapter_list(Path(file)) for file in entry.chapters]
        assert len({c for chapters in lists for c in chapters}) == sum(map(len, lists))
        assert set(entry.parts) <= set(corpus.download)


def test_no_reader_of_the_10_h_is_in_its_development_set():
    folder = ROOT / "egs/librispeech_10/l0_conformer1/conf/chapters"
    lists = {path.stem: read_chapter_list(path) for path in folder.glob("*.txt")}
    readers = {n: {c.partition("-")[0] for c in chapters} for n, chapters in lists.items()}
    train = readers["train_clean_5"] | readers["train_extra_5"]
    assert not train & readers["dev_clean_2"]
    assert {name: sum(chapters.values()) for name, chapters in lists.items()} == {
        "train_clean_5": 1519,
        "train_extra_5": 2255,
        "dev_clean_2": 1089,
    }


def test_debug_corpus_is_in_range():
    values = load_yaml(ROOT / "conf/debug/corpus.yaml")
    check(to_dataclass(Corpus, values, "corpus.yaml"), "corpus.yaml")
    assert set(load_yaml(ROOT / "conf/debug/generated.yaml")["sets"]) == set(values["sets"])


@pytest.mark.parametrize("recipe", RECIPES, ids=identify)
def test_shared_files_below_conf_are_all_used(recipe):
    """A list of chapters that data.yaml doesn't name would be forgotten there."""
    lists = {p.resolve() for p in (recipe / "conf").rglob("*.txt")}
    data = recipe / "conf/data.yaml"
    named = read_corpus(data).sets.values() if lists or data.exists() else ()
    assert lists <= {Path(file).resolve() for entry in named for file in entry.chapters}
