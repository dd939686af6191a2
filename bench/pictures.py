"""The pictures under docs/pictures: the quickstart's plan and graph, and three diagnostics, made anew.

    python bench/pictures.py [--browser /usr/bin/chromium] [--run specs/quickstart/runs/student-...]

The graph is also photographed as the page shows it, at 1280 x 800, where there is a Chromium or Chrome, and so is the
report of a finished run.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from typer.testing import CliRunner

import brewgraph as bg
from brewgraph.cli.main import application
from brewgraph.cli.output import painter
from brewgraph.diagnostics import SpecError, render

REPOSITORY = Path(__file__).resolve().parents[1]
SPEC = "specs/quickstart/student.brew"
HEAD = """\
brew 1

teacher bert = hf(model_type="bert", num_hidden_layers=12, hidden_size=768, labels=["no", "yes"])
student tiny = hf(model_type="bert", num_hidden_layers=3, hidden_size=384, num_attention_heads=12)
data docs    = builtin("python-docs", batch=32)

"""
FAULTS = {
    "widths": "let map = [0, 4, 8, 12] -> [0, 1, 2, 3]\n\nhidden = mse(bert.hidden[map] -> tiny.hidden[map])\n\n"
    "loss = sum(hidden)\n",
    "module": 'tap deep = bert @ "encoder.layers.7.output"\n\nloss = mse(deep -> tiny.hidden[2] via linear)\n',
    "index": "near = mse(bert.attention[12] -> tiny.attention[2])\n\nloss = near + ce(docs.labels -> tiny.logits)\n",
}
THEME = TerminalTheme(
    (250, 250, 251), (29, 36, 48),
    [(29, 36, 48), (194, 47, 94), (42, 122, 75), (156, 90, 10), (31, 95, 191), (140, 70, 170), (14, 116, 144),
     (90, 100, 115)],
)  # fmt: skip


class Terminal(io.StringIO):
    """A stream that takes colours."""

    def isatty(self) -> bool:
        return True


def photograph(text: str, title: str, path: Path) -> None:
    """A terminal with this text as an SVG file, which asks for no font from elsewhere."""
    lines = text.rstrip().splitlines()
    width = max(len(Text.from_ansi(line).plain) for line in lines) + 1
    console = Console(record=True, width=width, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    # an empty line at the end, or the tails of the last letters are cut off
    console.print(Text.from_ansi("\n".join([*lines, ""])), no_wrap=True, crop=False)
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.S)
    form = form.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    drawn = console.export_svg(title=title, theme=THEME, code_format=form, unique_id=path.stem)
    path.write_text("\n".join(line.rstrip() for line in drawn.splitlines()) + "\n")
    print(path)


def faults(text: str) -> str:
    """What a spec's check says, with colours."""
    paint = painter(Terminal())
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.brew"
        spec.write_text(text)
        try:
            found = bg.load(spec).warnings
        except SpecError as error:
            found = error.diagnostics
        errors = [d for d in found if d.severity == "error"]
        return "\n\n".join(render(d, paint) for d in errors).replace(f"{folder}/", "")


def screenshot(page: Path, path: Path, browser: str, *, at: str = "", height: int = 800) -> None:
    """The page, 1280 wide, with the part `at` it in view."""
    with tempfile.TemporaryDirectory() as profile:
        flags = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync", "hide-scrollbars",
                 "disable-background-networking", "disable-component-update")  # fmt: skip
        size = (f"--window-size=1280,{height}", f"--user-data-dir={profile}", f"--screenshot={path}")
        address = f"{page.resolve().as_uri()}{at}"
        subprocess.run(
            [browser, *(f"--{x}" for x in flags), *size, address], check=True, capture_output=True, timeout=120
        )
    print(path)


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    parser.add_argument("--browser", default=next(filter(None, known), None), help="for the photograph of the page")
    parser.add_argument("--run", type=Path, help="the folder of a finished run")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "pictures")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    plan = (
        CliRunner().invoke(application(["plan"]), ["plan", str(REPOSITORY / SPEC)]).stdout.replace(f"{REPOSITORY}/", "")
    )
    shown = plan[: plan.index("\ntraining\n")].rstrip()
    photograph(f"$ brewgraph plan {SPEC}\n{shown}", "brewgraph plan", given.out / "plan.svg")
    for name, text in FAULTS.items():
        said = f"$ brewgraph check spec.brew\n{faults(HEAD + text)}"
        photograph(said, "brewgraph check", given.out / f"diagnostic-{name}.svg")
    picture = bg.load(REPOSITORY / SPEC).picture()
    print(picture.save(given.out / "graph.svg"))
    page = picture.save(given.out / "graph.html")
    print(page)
    if given.browser is None:
        print("no Chromium or Chrome here: graph.png is left as it was")
    else:
        screenshot(page, given.out / "graph.png", given.browser, at="#terms/hidden[1]")
        if given.run is not None:
            with tempfile.TemporaryDirectory() as folder:
                report = Path(folder) / "report.html"
                CliRunner().invoke(application(["report"]), ["report", str(given.run), "--out", str(report)])
                screenshot(report, given.out / "report.png", given.browser, height=1450)


if __name__ == "__main__":
    main()
