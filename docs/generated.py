"""What the site and the README take from the code and from reports, so that neither is typed twice.

``python docs/generated.py`` writes the marked blocks of README.md anew; ``--check`` only says
whether they are current. The site's own pages of this kind are written when it is built.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = "generated"  # below docs/, known to git as ignored
HELP_COLUMNS = "100"
# The headline of the README: what the reports of the real Conformer say, and of which systems.
REAL_CONFORMER = REPOSITORY / "egs/librispeech_10/l0_nemo_conformer1"
HEADLINE = {
    "report.json": ("teacher", "pinch_weights_50"),
    "long/report.json": (
        "int8",
        "int4",
        "fisher_10_cut",
        "fisher_20_cut",
        "fisher_20_int4",
        "l0_30",
        "l0_50",
        "obs_weights_30_int8",
        "obs_weights_65",
    ),
}
HEADLINE_KEY = "test_clean/greedy"
HEADLINE_PLOT = REAL_CONFORMER / "pareto_test_clean_greedy.png"  # of espnet-prune pareto
PICTURE = re.compile(r"(!\[[^]]*\]\()(?=[^)/]+\))")  # one beside the text
BEGIN, END = "<!-- begin {}: docs/generated.py writes this -->", "<!-- end {} -->"


def write_pages(docs: Path) -> None:
    """Writes the generated pages of the site; those that are as they were stay untouched.

    Args:
        docs: the site's source folder.
    """
    folder = docs / FOLDER
    pages = {
        "command-line.md": command_line(),
        "recipe-options.md": recipe_options(),
        "models.md": support_table(),
        "methods.md": methods_table(),
        **dict(results()),
    }
    pages["results.md"] = results_index([name for name in pages if name.startswith("results/")])
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def command_line() -> str:
    """Every verb with its help, as ``espnet-prune VERB --help`` prints it."""
    os.environ["COLUMNS"] = HELP_COLUMNS
    from espnet_prune import cli

    parts = [
        "# The command line",
        "`espnet-prune VERB [OPTION...]`; without arguments it lists the verbs.",
    ]
    for title, verbs in cli.VERBS.items():
        parts.append(f"## {title}")
        for name, verb in verbs.items():
            parts.append(f"### {name}")
            if verb.passes_on:
                parts.append(
                    f"{verb.help[0].upper()}{verb.help[1:]}. Its options are that program's."
                )
            else:
                parts.append(f"```text\n{cli.get_parser(name).format_help().rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def recipe_options() -> str:
    """The options and stages of a recipe's run.sh, as its ``--help`` prints them."""
    driver = REPOSITORY / "egs/TEMPLATE/prune1/prune.sh"
    environment = {**os.environ, "program": "run.sh"}
    run = subprocess.run(
        ["bash", str(driver), "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return f"# Options of a recipe\n\n```text\n{run.stdout.rstrip()}\n```\n"


def support_table() -> str:
    """What can be pruned of which models, by the families' own records."""
    from espnet_prune.models import families
    from espnet_prune.models.family import COLUMNS

    header = ["| model | " + " | ".join(COLUMNS) + " |", "|" + "---|" * (1 + len(COLUMNS))]
    return "\n".join([*header, *(family.support.row() for family in families())]) + "\n"


def support_matrix() -> str:
    """The same in short, for the README: a mark a cell, and models without what is in brackets."""
    marks = {"none there": "none", "not yet": ""}
    lines = support_table().splitlines()
    for number, line in enumerate(lines[2:], 2):
        model, *cells = line.strip("| ").split(" | ")
        name = model.split(" (")[0].split(", in the same run")[0]
        lines[number] = "| " + " | ".join([name, *(marks.get(cell, "✓") for cell in cells)]) + " |"
    return "\n".join(lines) + "\n"


def methods_table() -> str:
    """The methods by name: what each does, when it chooses, sizes a run, its paper."""
    from espnet_prune.methods import METHODS

    modules = Counter(method.__module__ for method in METHODS.values())
    lines = ["| `method:` | what it does | masks | sizes a run | paper |", "|---|---|---|---|---|"]
    for name, method in METHODS.items():
        module = sys.modules[method.__module__].__doc__ or ""
        text = method.__doc__ if modules[method.__module__] > 1 else module  # of one of its kind
        cells = [f"`{name}`", _first(text or ""), _masks(method), _sizes(method), _paper(module)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _first(docstring: str) -> str:
    """The first paragraph, in one line of Markdown."""
    return " ".join(docstring.strip().split("\n\n")[0].split()).replace("``", "`")


def _paper(docstring: str) -> str:
    """The first paper that a module names."""
    found = re.search(r"arXiv\s(\d{4}\.\d{5})", docstring)
    return f"[{found[1]}](https://arxiv.org/abs/{found[1]})" if found else ""


def _masks(method: type) -> str:
    from espnet_prune.methods.base import DataMethod

    if method.learns_masks:
        return "learned in stage 8"
    return "chosen at once" + (", by training utterances" if issubclass(method, DataMethod) else "")


def _sizes(method: type) -> str:
    return "several (`ladder`)" if getattr(method, "emits_ladder", False) else "one"


def results() -> Iterator[tuple[str, str]]:
    """Every RESULTS.md of the repository as a page."""
    for top in ("egs", "benchmarks"):
        for path in sorted((REPOSITORY / top).rglob("RESULTS.md")):
            if "exp" in path.parts:
                continue
            place = path.parent.relative_to(REPOSITORY)
            text = path.read_text(encoding="utf-8")
            heading, _, rest = text.partition("\n")
            name = "results/" + "-".join(place.parts) + ".md"
            up = "../" * (len(Path(name).parts) + len(Path(FOLDER).parts))
            pictures = PICTURE.sub(rf"\1{up}{place.as_posix()}/", rest)
            yield name, f"{heading} ({place})\n{pictures}"


def results_index(names: list[str]) -> str:
    """The page that lists them."""
    tree = "\n".join(name.removesuffix(".md") for name in names)
    return (
        "# Results\n\n"
        "Each page is a `RESULTS.md` that the report command wrote, with the command, the commit "
        "and the machine beside every row.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{tree}\n```\n"
    )


def headline() -> str:
    """The README's table and plot of the real Conformer.

    Raises:
        ValueError: the reports are of different test sets.
    """
    from espnet_prune.report.headline import headline_table

    systems = []
    for name, wanted in HEADLINE.items():
        report = json.loads((REAL_CONFORMER / name).read_text(encoding="utf-8"))
        systems += [system for system in report["systems"] if system["name"] in wanted]
    table = headline_table({"systems": systems}, HEADLINE_KEY, [*chain(*HEADLINE.values())])
    words = {system["wer"][HEADLINE_KEY]["words"] for system in systems}
    if len(words) > 1:
        raise ValueError(f"{', '.join(HEADLINE)}: different numbers of words, {sorted(words)}")
    if not HEADLINE_PLOT.exists():
        return table
    return f"{table}\n\n![WER against size]({HEADLINE_PLOT.relative_to(REPOSITORY)})"


def readme(text: str) -> str:
    """The README with its marked blocks as they should be.

    Raises:
        ValueError: a mark is missing.
    """
    for name, make in {"result": headline, "models": support_matrix}.items():
        begin, end = BEGIN.format(name), END.format(name)
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"README.md: expected the lines '{begin}' and '{end}' once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{make().strip()}\n{end}{rest.split(end)[1]}"
    return text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes the marked blocks of README.md anew.")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if it's old")
    args = parser.parse_args(argv)
    path = REPOSITORY / "README.md"
    old = path.read_text(encoding="utf-8")
    new = readme(old)
    if args.check:
        if old != new:
            print("error: README.md is not current; run: python docs/generated.py", file=sys.stderr)
        return int(old != new)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    sys.exit(main())
