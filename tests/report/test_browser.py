"""The report's page in a real browser, at the width of a telephone and of a screen."""

import json
import re
import shutil
import subprocess

import pytest
from made_up_experiment import make_system

from espnet_prune.cli import run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# What is measured is written into the page itself, which the browser then prints.
PROBE = """<script>window.addEventListener("load", () => {
const edge = document.documentElement.clientWidth;
document.body.dataset.seen = JSON.stringify({
  width: window.innerWidth,
  overflow: document.documentElement.scrollWidth - edge,
  broken: [...document.images].filter(image => !image.naturalWidth).length,
  images: document.images.length,
  least_font: Math.min(...[...document.querySelectorAll("td, p, figcaption")].map(
    element => parseFloat(getComputedStyle(element).fontSize))),
  tables: document.querySelectorAll("table").length,
})})</script></body>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)"
    ),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    experiment = tmp_path_factory.mktemp("exp") / "base"
    make_system(experiment, "teacher", "teacher")
    for number, method in enumerate(("l0_distill", "fisher", "uniform_magnitude")):
        make_system(experiment, f"{method}_with_a_name_that_is_long_{number}", method, number)
    assert run(["report", str(experiment), "--corpus", "made_up"]) == 0
    return (experiment / "report/index.html").read_text()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("width", [500, 1400])
def test_nothing_is_cut_off_or_missing(width, page, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", PROBE))
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
    ]
    options = [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, *options, path.as_uri()], capture_output=True, text=True, check=True
    )
    seen = json.loads(re.search(r'data-seen="([^"]*)"', done.stdout)[1].replace("&quot;", '"'))
    assert seen["width"] == width
    assert seen["overflow"] <= 0, "the page is wider than the window"
    assert seen["images"] >= 1 and seen["broken"] == 0
    assert seen["tables"] >= 3 and seen["least_font"] >= 12
