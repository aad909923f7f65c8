"""Checks what a recipe made against tests/recipes.csv: its files are there, its bounds are kept.

The table has a row for every configuration of every recipe:

- config: the YAML file, relative to the repository;
- makes: files that it must lead to, relative to exp/TAG, separated by spaces;
- bounds: separated by ``;``, each ``SYSTEM KEY[.KEY...] <=|>= NUMBER`` about the
  report.json, such as ``teacher wer.test/joint.wer <= 7.6``.
"""

import argparse
import csv
import json
import logging
import operator
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests/recipes.csv"
COLUMNS = ["config", "makes", "bounds"]
COMPARISONS = {"<=": operator.le, ">=": operator.ge}

logger = logging.getLogger("check_recipe")


@dataclass(frozen=True)
class Bound:
    """A number of the report and the limit that it must keep."""

    system: str
    keys: tuple[str, ...]
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Bound":
        """Reads ``SYSTEM KEY[.KEY...] <=|>= NUMBER``; ValueError says what is wrong."""
        words = text.split()
        if len(words) != 4 or words[2] not in COMPARISONS:
            raise ValueError(f"bound '{text}': expected SYSTEM KEY[.KEY...] <=|>= NUMBER")
        return cls(words[0], tuple(words[1].split(".")), words[2], float(words[3]))

    def problem(self, report: dict) -> str | None:
        """Returns what is wrong with the report, None where it keeps the bound."""
        what = f"{self.system} {'.'.join(self.keys)}"
        found = [s for s in report["systems"] if s["name"] == self.system]
        if not found:
            return f"{what}: the report has no system '{self.system}'"
        value = found[0]
        for key in self.keys:
            if not isinstance(value, dict) or value.get(key) is None:
                return f"{what}: not in the report"
            value = value[key]
        if not isinstance(value, (int, float)):
            return f"{what} is {value!r}, expected a number"
        if not COMPARISONS[self.comparison](value, self.limit):
            return f"{what} is {value}, expected {self.comparison} {self.limit}"
        return None


@dataclass(frozen=True)
class Row:
    """What one configuration must lead to."""

    config: str
    makes: tuple[str, ...]
    bounds: tuple[Bound, ...]


def read_table(path: Path = TABLE) -> list[Row]:
    """Returns the table's rows; ValueError names the row that is malformed."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise ValueError(f"{path}: expected the columns {COLUMNS}, not {reader.fieldnames}")
        rows = []
        for row in reader:
            bounds = [Bound.parse(b) for b in row["bounds"].split(";") if b.strip()]
            rows.append(Row(row["config"], tuple(row["makes"].split()), tuple(bounds)))
    return rows


def problems(rows: Sequence[Row], experiment: Path) -> list[str]:
    """Returns what is missing in ``experiment`` or misses its bound, a line each."""
    missing = [
        f"{row.config}: {experiment / name} is missing"
        for row in rows
        for name in row.makes
        if not (experiment / name).is_file()
    ]
    report_file = experiment / "report/report.json"
    if not report_file.is_file():
        return [*missing, f"{report_file} is missing, so no bound can be checked"]
    try:
        report = json.loads(report_file.read_text(encoding="utf-8"))
        {system["name"] for system in report["systems"]}
    except (ValueError, KeyError, TypeError) as error:
        again = "run stage 13 (report) again"
        return [*missing, f"{report_file} is damaged ({error!r}), so no bound was checked; {again}"]
    found = [bound.problem(report) for row in rows for bound in row.bounds]
    return missing + [problem for problem in found if problem]


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("conf", type=Path, help="the recipe's folder of configurations")
    parser.add_argument("experiment", type=Path, help="exp/TAG of the recipe")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    conf = arguments.conf.resolve()
    rows = [row for row in read_table() if (ROOT / row.config).parent == conf]
    if not rows:
        logger.error("error: %s has no row for a file of %s", TABLE, conf)
        return 2
    found = problems(rows, arguments.experiment)
    for problem in found:
        logger.error("error: %s", problem)
    logger.info("%d configurations checked, %d problems", len(rows), len(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
