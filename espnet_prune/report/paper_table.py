"""A paper's published figures beside ours, each marked with where it is from.

Published figures come from ``published.yaml`` only, ours from report.json files only. What a paper
doesn't say is "not published", what we haven't measured is "not run": no cell is empty or guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet_prune.config import check_choice, load_yaml, to_dataclass
from espnet_prune.errors import DataError
from espnet_prune.report.collect import TEACHER, prunes_single_weights
from espnet_prune.report.stage_results import read_result
from espnet_prune.report.text_table import (
    NOT_APPLICABLE,
    NOT_RUN,
    Table,
    markdown_table,
    wer_cell,
)

PUBLISHED = Path(__file__).with_name("published.yaml")
NOT_PUBLISHED = "not published"
TRAINING = "training s"
ZEROS = "; zeros in tensors of the same shape"
EXPLANATION = (
    "Rows marked *published* are figures from the named source, not measured here; those marked "
    "*ours* are measured by this project: WER in % with its 95% interval and p against our "
    "uncompressed model. Models, data and machines of the two kinds differ unless a row says "
    "otherwise. The prunable parameters are those of the units or matrices that a method may "
    f"prune. Under *{TRAINING}* stand the seconds that we trained: pruning and finetuning, without "
    "the teacher's own; they depend on the machine."
)


@dataclass(frozen=True)
class PublishedRow:
    """One published result.

    Attributes:
        name: what it is of.
        source: where it was read.
        uncompressed: whether it is a model before any compression.
        smaller: share of the parameters removed; None where it isn't published.
        of_what: the whole that ``smaller`` is a share of.
        ratio: size before by size after.
        cheaper: share of the inference cost removed.
        cost_of: the unit of that cost.
        wer: word error rate in % by set.
    """

    name: str
    source: str
    uncompressed: bool = False
    smaller: float | None = None
    of_what: str | None = None
    ratio: float | None = None
    cheaper: float | None = None
    cost_of: str | None = None
    wer: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """A paper's rows, and which of our methods stand beside them.

    Attributes:
        title: the paper's.
        reference: authors, place, year, number.
        methods: ours, in the order of the table.
        rows: its results.
        baselines: names of what it compares with, of which no figure could be read.
        notes: what a reader has to know besides.
    """

    title: str
    reference: str
    methods: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    baselines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_papers(path: Path = PUBLISHED) -> dict[str, Paper]:
    """Reads the published figures, strictly."""
    papers = load_yaml(path).items()
    return {name: to_dataclass(Paper, values, f"{path}: {name}") for name, values in papers}


def read_reports(paths: Sequence[Path]) -> list[dict]:
    """The experiments of report.json files; one file may hold several.

    Raises:
        DataError: a file is missing or isn't a report; names it.
    """
    reports = []
    for path in paths:
        value = read_result(path)
        found = value.get("experiments", [value])
        for report in found:
            if not isinstance(report, dict) or "systems" not in report:
                raise DataError(f"{path}: it isn't a report.json; run the stage 'report' first")
        reports += found
    return reports


def paper_table(name: str, reports: Sequence[dict], command: str) -> str:
    """The table as Markdown.

    Args:
        name: key of ``published.yaml``.
        reports: what ``read_reports`` gave.
        command: that made it.

    Raises:
        ConfigError: no such paper; names those that there are.
    """
    papers = read_papers()
    paper = papers[check_choice("--paper", name, papers)]
    ours = {method: _systems_of(method, reports) for method in (TEACHER, *paper.methods)}
    columns = test_sets(paper, [system for lines in ours.values() for _, system in lines])
    header = ["model", "figures", "smaller by", "inference cost less by", TRAINING]
    header += [f"WER {name}" for name in columns]
    rows = [_published(row, columns) for row in paper.rows]
    named = f"published: only its name, {paper.reference}"
    rows += [[name, named, *[NOT_PUBLISHED] * (len(header) - 2)] for name in paper.baselines]
    for method, lines in ours.items():
        rows += [_ours(report, system, columns) for report, system in lines]
        if not lines:
            rows.append([_our_name(method, method), "ours", *[NOT_RUN] * (len(header) - 2)])
    lines = [f"# {name}: {paper.title}", "", f"{paper.reference}. Made by `{command}`; don't edit."]
    lines += [
        EXPLANATION,
        "",
        *markdown_table(Table("", header, rows)),
        "",
        *(f"- {note}" for note in paper.notes),
    ]
    return "\n".join(lines) + "\n"


def _systems_of(method: str, reports: Sequence[Mapping]) -> list[tuple[Mapping, Mapping]]:
    return [(r, system) for r in reports for system in r["systems"] if system["method"] == method]


def _our_name(name: str, method: str) -> str:
    return name if name == method else f"{name} ({method})"


def test_sets(paper: Paper, systems: Sequence[Mapping]) -> list[str]:
    """All sets that have a WER, published or ours, each once."""
    published = [name for row in paper.rows for name in row.wer]
    ours = [key.rpartition("/")[0] for system in systems for key in system["wer"]]
    return list(dict.fromkeys([*published, *ours]))


def _published(row: PublishedRow, columns: Sequence[str]) -> list[str]:
    if row.ratio is not None:
        smaller = f"{row.ratio:g}x (of what: {row.of_what or NOT_PUBLISHED})"
    else:
        smaller = _share(row.smaller, row.of_what, "of what", row.uncompressed)
    cost = _share(row.cheaper, row.cost_of, "unit", row.uncompressed)
    cells = [f"{row.wer[name]:g}" if name in row.wer else NOT_PUBLISHED for name in columns]
    training = NOT_APPLICABLE if row.uncompressed else NOT_PUBLISHED
    return [row.name, f"published: {row.source}", smaller, cost, training, *cells]


def _share(value: float | None, whole: str | None, what: str, uncompressed: bool) -> str:
    if uncompressed:
        return NOT_APPLICABLE
    if value is None:
        return NOT_PUBLISHED
    return f"{value:.0%} ({what}: {whole or NOT_PUBLISHED})"


def _ours(report: Mapping, system: Mapping, columns: Sequence[str]) -> list[str]:
    cells = [_modes(system["wer"], name) for name in columns]
    training = _training(system)
    origin = f"ours: {report['corpus']}, {report['experiment']}"
    if system["method"] == TEACHER:
        return [system["name"], origin, NOT_APPLICABLE, NOT_APPLICABLE, training, *cells]
    name = _our_name(system["name"], system["method"])
    return [name, origin, _smaller(system), _cheaper(system), training, *cells]


def _modes(wer: Mapping, name: str) -> str:
    """Our WER of a set by every decoding mode."""
    scores = {k.rpartition("/")[2]: s for k, s in wer.items() if k.rpartition("/")[0] == name}
    return "; ".join(f"{mode}: {wer_cell(score)}" for mode, score in scores.items()) or NOT_RUN


def _training(system: Mapping) -> str:
    """Seconds of its training, and how many of them another row has too."""
    seconds, shared = system["train_seconds"], system["shared"]
    if seconds is None:
        return NOT_RUN
    of_both = f" ({shared['seconds']:.0f} of them of {shared['system']} too)" if shared else ""
    return f"{seconds:.0f}{of_both}"


def _smaller(system: Mapping) -> str:
    params = system["params"] or {}
    parts = [
        f"{1 - params[part]['kept'] / params[part]['dense']:.1%} of the {name}"
        for part, name in (("total", "model"), ("encoder", "encoder"), ("prunable", "prunable"))
        if params.get(part)
    ]
    zeros = ZEROS if parts and prunes_single_weights(system) else ""
    return ", ".join(parts) + zeros if parts else NOT_RUN


def _cheaper(system: Mapping) -> str:
    speedup = system["speedup"]
    if not speedup:
        return NOT_RUN
    parts = (("predicted", "MACs"), ("encoder", "time"))
    return "encoder: " + ", ".join(
        f"{1 - 1 / speedup[k]:.1%} of {n}" for k, n in parts if speedup[k]
    )
