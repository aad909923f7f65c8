"""What small_english.py writes: rows, what they say of each rival, a page and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

IDLE_LOAD = 0.5  # processes that want a core, before this one does
IDLE_WALL = 1.1  # wall seconds over the processor's: above, others had the core in between
TICKS = (1, 2, 3, 5, 7)  # of each decade of the plot
SHIFTS = ((5, 3), (5, -10), (-12, 3), (-12, -10))  # of a number from its point, in points, in turn


@dataclass(frozen=True)
class Row:
    """One recogniser.

    Attributes:
        name: its name.
        ours: whether it is this project's.
        size_bytes: of its files.
        audio_seconds: of all utterances.
        processor_rtf: processor seconds a second of audio.
        wall_rtf: wall seconds a second of audio.
        time_ratio: its processor seconds over those of the first row.
        score: as score.json has it.
        errors: of each utterance.
    """

    name: str
    ours: bool
    size_bytes: int
    audio_seconds: float
    processor_rtf: float
    wall_rtf: float
    time_ratio: float
    score: dict
    errors: tuple[int, ...]


@dataclass(frozen=True)
class Better:
    """One of ours that has fewer errors than a rival.

    Attributes:
        name: ours.
        errors: its errors.
        p_value: that both make equally many, by the project's test.
    """

    name: str
    errors: int
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """What the rows say of a rival.

    Attributes:
        rival: its name.
        errors: its errors.
        by_size: ours of the fewest errors among those at most as large, if they are fewer.
        by_speed: likewise among those at least as fast.
    """

    rival: str
    errors: int
    by_size: Better | None
    by_speed: Better | None


def rows(
    measured: Mapping,
    references: Mapping[str, str],
    seconds: Mapping[str, float],
    sizes: Mapping[str, int],
    ours: set[str],
) -> list[Row]:
    """A row each, the first being what p-values and times refer to.

    Args:
        measured: ``small_english.Measured`` by name, all of the same utterances.
        references: transcript by utterance, perhaps of more of them.
        seconds: length by utterance.
        sizes: bytes by name.
        ours: names of this project's.

    Raises:
        DataError: nothing was measured.
    """
    from espnet_prune.errors import DataError
    from espnet_prune.models.whisper.normalise import english_normaliser
    from espnet_prune.score.wer import count_errors, score

    plain = english_normaliser()
    first = next(iter(measured.values()))
    if not first.texts:
        raise DataError("no utterance was measured; give more --minutes")
    said = {name: plain(references[name]) for name in first.texts}
    heard = {
        name: {utterance: plain(found.texts[utterance]) for utterance in said}
        for name, found in measured.items()
    }
    audio = sum(seconds[name] for name in said)
    teacher = next(iter(heard.values()))
    made = []
    for name, found in measured.items():
        of_itself = heard[name] is teacher
        result = score(said, heard[name], None if of_itself else teacher)
        made.append(
            Row(
                name=name,
                ours=name in ours,
                size_bytes=sizes[name],
                audio_seconds=audio,
                processor_rtf=found.processor_seconds / audio,
                wall_rtf=found.wall_seconds / audio,
                time_ratio=found.processor_seconds / first.processor_seconds,
                score=result.to_json(),
                errors=tuple(c.errors for c in count_errors(said, heard[name], result.tool)[0]),
            )
        )
    return made


def verdicts(found: Sequence[Row]) -> list[Verdict]:
    """One for each rival: which of ours are no larger, or no slower, and have fewer errors."""
    made = []
    for rival in (row for row in found if not row.ours):
        small = [row for row in found if row.ours and row.size_bytes <= rival.size_bytes]
        fast = [row for row in found if row.ours and row.processor_rtf <= rival.processor_rtf]
        made.append(Verdict(rival.name, sum(rival.errors), _best(small, rival), _best(fast, rival)))
    return made


def _best(candidates: Sequence[Row], rival: Row) -> Better | None:
    from espnet_prune.score.wer import matched_pairs

    best = min(candidates, key=lambda row: sum(row.errors), default=None)
    if best is None or sum(best.errors) >= sum(rival.errors):
        return None
    p_value = matched_pairs(numpy.array(best.errors), numpy.array(rival.errors))
    return Better(best.name, sum(best.errors), p_value)


def lines(record: Mapping) -> list[str]:
    """The page, without its title and plot: conditions, table, verdicts, what is missing."""
    from espnet_prune.report.text_table import Table, markdown_table

    header = ["", "", "words", "errors", "WER % [95%]", "p", "MB"]
    header += [f"time / {record['rows'][0]['name']}", "RTF", "wall RTF"]
    cells = [_cells(number, row) for number, row in enumerate(record["rows"], 1)]
    missing = [f"- not compared: {name}: {reason}" for name, reason in record["missing"].items()]
    return [
        *_conditions(record),
        "",
        *markdown_table(Table("", header, cells)),
        "",
        *_verdict_lines(record["verdicts"]),
        *missing,
    ]


def _cells(number: int, row: Mapping) -> list[str]:
    score = row["score"]
    low, high = score["ci95"]
    p_value = score["p_vs_teacher"]
    return [
        str(number),
        f"**{row['name']}**" if row["ours"] else row["name"],
        str(score["words"]),
        str(score["errors"]),
        f"{score['wer']:.2f} [{low:.1f}, {high:.1f}]",
        "-" if p_value is None else _p(p_value),
        f"{row['size_bytes'] / 1e6:.1f}",
        f"{row['time_ratio']:.2f}",
        f"{row['processor_rtf']:.3f}",
        f"{row['wall_rtf']:.3f}",
    ]


def _p(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def _conditions(record: Mapping) -> list[str]:
    from espnet_prune.score.wer import TEST

    about = record["machine"]
    asked = record["asked"]
    stopped = f" of {asked} asked" if record["utterances"] < asked else ""
    packages = ", ".join(f"{name} {found}" for name, found in record["packages"].items())
    return [
        f"{record['utterances']} utterances{stopped} of `{record['data']}`, "
        f"{record['audio_seconds'] / 60:.1f} min of speech; {about['cpu']}, one core of "
        f"{about['cores']}, 1 thread, batch 1, recognisers in turn, the least of "
        f"{record['repeats']}; {packages}. Normalised by {record['normalisation']}; intervals by "
        f"bootstrap, p against row 1 by {TEST}; bold: ours. RTF: "
        "processor seconds a second of speech. MB: weights, settings and vocabulary.",
        "",
        busy(record),
    ]


def busy(record: Mapping) -> str:
    """Whether the machine had other work, by its load before and by wall over processor seconds."""
    load = record["load_average"]
    wall, processor = (
        sum(row[key] for row in record["rows"]) for key in ("wall_rtf", "processor_rtf")
    )
    found = f"load average {load:.1f} at the start, wall {wall / processor:.2f} x processor seconds"
    if load > IDLE_LOAD or wall > IDLE_WALL * processor:
        return (
            f"Machine busy: {found}. Times hold beside one another only, and are longer than an "
            "idle machine's."
        )
    return f"Machine idle: {found}."


def _verdict_lines(found: Sequence[Mapping]) -> list[str]:
    counts = [sum(v[key] is not None for v in found) for key in ("by_size", "by_speed")]
    whether = "met" if counts == [len(found)] * 2 else "not met"
    bar = (
        f"The bar, fewer errors at each rival's size and at each rival's speed, is {whether}: at "
        f"{counts[0]} of {len(found)} sizes, at {counts[1]} of {len(found)} speeds."
    )
    return [
        bar if found else "No rival was compared.",
        "",
        *(
            f"- {v['rival']} ({v['errors']} errors): at most as large, {_of(v['by_size'])}; at "
            f"least as fast, {_of(v['by_speed'])}"
            for v in found
        ),
    ]


def _of(better: Mapping | None) -> str:
    if better is None:
        return "none of ours has fewer"
    return f"{better['name']} has {better['errors']} (p {_p(better['p_value'])})"


def write(record: Mapping, folder: Path, name: str) -> list[Path]:
    """Writes the record, the page and the plot; returns their paths."""
    from espnet_prune.io_atomic import write_json, write_text

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("json", "md", "png")]
    write_json(paths[0], record)
    title = ["# Small recognisers of English", "", f"Made by `{record['command']}`"]
    title[-1] += f" (commit {record['commit']}); don't edit."
    page = [*title, "", *lines(record), "", f"![WER by time and by size]({paths[2].name})", ""]
    write_text(paths[1], "\n".join(page))
    plot(record["rows"], paths[2])
    return paths


def plot(found: Sequence[Mapping], path: Path) -> Path:
    """WER with its interval against time and against size; rows by the table's numbers.

    Ours are filled circles, rivals hollow squares: no colour tells them apart.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    from espnet_prune.report.plots import bars, save, subplots

    figure, panels = subplots(1, 12, 5, columns=2, sharey=True)
    reach = {f"processor seconds over those of {found[0]['name']}": "time_ratio"}
    for axes, (label, key) in zip(panels, {**reach, "MB": "size_bytes"}.items(), strict=True):
        scale = 1e6 if key == "size_bytes" else 1.0
        for number, row in enumerate(found, 1):
            place, rate = row[key] / scale, row["score"]["wer"]
            axes.errorbar(
                place,
                rate,
                bars([rate], [row["score"]["ci95"]]),
                fmt="o" if row["ours"] else "s",
                color="black" if row["ours"] else "#666666",
                markerfacecolor="black" if row["ours"] else "white",
                elinewidth=0.6,
                label=f"{number} {row['name']}",
            )
            shift = SHIFTS[number % len(SHIFTS)]
            axes.annotate(str(number), (place, rate), shift, textcoords="offset points", fontsize=8)
        axes.set(xscale="log", yscale="log", xlabel=label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=TICKS))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("WER %, 95% interval")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return save(figure, path)
