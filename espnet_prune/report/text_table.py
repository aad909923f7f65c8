"""A table of text: its cells, and its lines for the terminal and for Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NOT_RUN = "not run"
NOISY = "noisy"  # a time that the machine's other work blurred
NOT_APPLICABLE = "-"
TERMINAL_COLUMNS = 120
GAP = "  "

Line = tuple[str, dict]


@dataclass(frozen=True)
class Table:
    """A titled table of text; the first column names the system, a note may stand below."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


def wer_keys(systems: Sequence[dict]) -> list[str]:
    """All ``<set>/<mode>`` of the systems, in order."""
    return list(dict.fromkeys(key for system in systems for key in system["wer"]))


def named_systems(reports: Sequence[dict]) -> list[Line]:
    """Every system with its name; of several reports the experiment's name stands before it."""
    several = len(reports) > 1
    return [
        (f"{report['experiment']}/{system['name']}" if several else system["name"], system)
        for report in reports
        for system in report["systems"]
    ]


def in_bytes(number: int) -> str:
    """A size with its unit: ``4.2 MB``."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number} B"


def rtf_cell(rtf: dict, speedup: dict, mode: str) -> str:
    """``0.0436 (1.08x)``; the encoder's speed-up has columns of its own."""
    if mode not in rtf:
        return NOT_APPLICABLE  # CTC alone, or a decoder alone
    if rtf[mode] is None:
        return NOISY
    text = f"{rtf[mode]:.4f}"
    return text if mode == "encoder" or mode not in speedup else f"{text} ({speedup[mode]:.2f}x)"


def speed_cell(speedup: dict | None, measurement: str = "encoder", unit: str = "") -> str:
    """``1.45``, and the unit behind it."""
    if not speedup:
        return NOT_RUN
    value = speedup[measurement]
    return NOISY if value is None else f"{value:.2f}{unit}"


def conditions(lines: Sequence[Line]) -> str:
    """Threads and batch of the systems' times."""
    found = [
        f"{system['rtf']['threads']} thread, batch {system['rtf']['batch']}"
        for _, system in lines
        if system["rtf"]
    ]
    return "; ".join(dict.fromkeys(found)) or NOT_RUN


def wer_cell(score: dict | None) -> str:
    """``5.17 [3.5, 7.0] p 0.410``, and ``; p 0.002 unpruned`` against another system."""
    if not score:
        return NOT_RUN
    low, high = score["ci95"]
    text = f"{score['wer']:.2f} [{low:.1f}, {high:.1f}]"
    if score.get("p_vs_teacher") is not None:
        text += f" {_p_value(score['p_vs_teacher'])}"
    others = score.get("p_vs") or {}
    return text + "".join(f"; {_p_value(p_value)} {name}" for name, p_value in others.items())


def _p_value(p_value: float) -> str:
    return f"p {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def fit(table: Table, columns: int = TERMINAL_COLUMNS) -> Iterator[Table]:
    """Splits a table by columns, the first repeated, so that each part fits."""
    widths = _widths([table.header, *table.rows])
    start = 1
    while True:
        end, used = start, widths[0]
        while end < len(widths) and (end == start or used + len(GAP) + widths[end] <= columns):
            used += len(GAP) + widths[end]
            end += 1
        lines = [[line[0], *line[start:end]] for line in (table.header, *table.rows)]
        title = table.title if start == 1 else f"{table.title}, continued"
        yield Table(title, lines[0], lines[1:], table.note if end >= len(widths) else "")
        start = end
        if start >= len(widths):
            return


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = _widths(lines)
    texts = [GAP.join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(text.rstrip() for text in texts)


def markdown_table(table: Table) -> list[str]:
    """The lines of a table and its note, without its title."""
    rule = "|" + "---|" * len(table.header)
    note = ["", table.note.replace("*", "\\*")] if table.note else []
    return [_markdown_row(table.header), rule, *map(_markdown_row, table.rows), *note]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
