"""The report's page: one HTML file that needs no other, pictures inside."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_prune.report import tables
from espnet_prune.report.text_table import NOT_RUN, named_systems

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font-family: sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; display: block; overflow-x: auto }
th, td { border: 1px solid #bbb; padding: .3em .6em; font-size: .85em; text-align: left }
th { background: #eef2ee }
tr:nth-child(odd) td { background: #fafafa }
figure { margin: 1.5em 0 }
figcaption { font-size: .85em; color: #555 }
img { max-width: 100% }
pre { background: #f4f4f4; padding: .6em; overflow-x: auto; font-size: .8em }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{{ words }}</p>
<p>{{ explanation }}</p>
{% for table in tables %}
<h2>{{ table.title }}</h2>
<table>
<tr>{% for cell in table.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% if table.note %}
<p>{{ table.note }}</p>
{% endif %}
{% endfor %}
<h2>Plots</h2>
{% for picture in pictures %}
<figure>
<img alt="{{ picture.title }}" src="data:image/png;base64,{{ picture.base64 }}">
<figcaption>{{ picture.title }}</figcaption>
</figure>
{% else %}
<p>{{ not_run }}</p>
{% endfor %}
<h2>How each was made</h2>
<p>{{ place_of_commands }}</p>
{% for name, how, commands in made %}
<details><summary><b>{{ name }}</b>: {{ how }}</summary><pre>{{ commands }}</pre></details>
{% endfor %}
<p>This page was made by <code>{{ command }}</code>.</p>
</body>
</html>
"""


@dataclass(frozen=True)
class Picture:
    """A plot and what it shows."""

    path: Path
    title: str

    @property
    def base64(self) -> str:
        """The file's bytes as text."""
        return base64.b64encode(self.path.read_bytes()).decode()


def render_page(reports: Sequence[dict], pictures: Sequence[Picture], command: str) -> str:
    """The page's text.

    Args:
        reports: what ``collect`` made.
        pictures: the plots, which are put inside.
        command: that made the report.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    made = [
        (name, tables.made(system), "\n".join(system["commands"]))
        for name, system in named_systems(reports)
    ]
    return environment.from_string(PAGE).render(
        title="Results: " + ", ".join(dict.fromkeys(report["corpus"] for report in reports)),
        words=tables.words_line(reports),
        explanation=tables.explanation(reports),
        tables=tables.tables(reports),
        pictures=pictures,
        made=made,
        place_of_commands=tables.PLACE_OF_COMMANDS,
        not_run=NOT_RUN,
        command=command,
    )
