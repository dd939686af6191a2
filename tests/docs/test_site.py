"""The pages of the site before they are rendered: each is found, each link leads to one, formulas are MathML."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml

from brewgraph.cli.ops import entries
from brewgraph.explanations import CODES
from brewgraph.ops import OPERATIONS, TEMPERATURES, TRANSFORMS
from docs.build import DOCS, faults, linked, main, navigation, outside_fences, place_of, rendered, target_of, texts
from tests.conftest import REPOSITORY


@cache
def pages() -> Mapping[str, str]:
    return texts()


@cache
def nav() -> list[object]:
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    return navigation(config["nav"], pages())


def test_every_page_is_in_the_navigation() -> None:
    """Add a new page to `nav` in mkdocs.yml."""
    assert list(faults(nav(), pages())) == []


def test_a_page_that_nobody_would_find_is_named_with_the_remedy() -> None:
    lost = [*pages(), "lost.md"]
    assert list(faults(nav(), lost)) == [
        "docs/lost.md is in no navigation: add it to `nav` in mkdocs.yml, where a reader would look for it"
    ]
    assert [x.split(":")[0] for x in faults([*nav(), {"Gone": "gone.md"}], pages())] == [
        "`nav` in mkdocs.yml names gone.md, which does not exist"
    ]


def test_everything_has_a_page() -> None:
    """Every name of `brewgraph ops` and every code; no two names share a page."""
    places = [place_of(entry) for entry in entries()]
    assert len(set(places)) == len(places)
    assert set(places) <= pages().keys()
    assert {f"codes/{code}.md" for code in CODES} <= pages().keys()


def test_titles_in_the_navigation_are_plain() -> None:
    """A navigation shows the signs of Markdown as they are."""
    assert "B331: ema of a model that is not a student" in str(nav())
    assert "`" not in str(nav())


def test_the_page_of_a_code_has_faults_that_a_check_finds() -> None:
    """Those of docs/faults.md with this code, with their messages; at most ten."""
    page = pages()["codes/B118.md"]
    assert "| join of kinds | `data e = files(" in page
    assert "cannot join data labelled `class` with unlabelled data" in page
    rows = re.findall(r"^\| (?!fault|-).* \|$", pages()["codes/B202.md"], re.MULTILINE)
    assert len(rows) == 10
    assert re.search(r"\d+ more are in \[the list of all faults\]", pages()["codes/B202.md"])


def test_every_link_leads_to_a_page() -> None:
    """To a page of the site, or to a file of docs/; pages elsewhere are left alone."""
    lost = []
    for page, text in pages().items():
        links: list[str] = []
        outside_fences(text, lambda part, links=links: links.extend(re.findall(r"\]\(([^)\s]+)\)", part)) or part)
        for link in links:
            target = posixpath.normpath(
                posixpath.join(posixpath.dirname(page), link.partition("#")[0] or posixpath.basename(page))
            )
            if not re.match(r"[a-z]+:", link) and target not in pages() and not (DOCS / target).is_file():
                lost.append(f"{page}: {link}")
    assert lost == []


@pytest.mark.parametrize(
    ("page", "link", "target"),
    [
        ("guide.md", "speed.md#memory", "speed.md"),
        ("guide.md", "../ARCHITECTURE.md", "architecture.md"),
        ("guide.md", "../grammar/README.md", "language.md"),
        ("tasks/tags.md", "../../specs/papers/ner-words.brew", "files/specs/papers/ner-words.brew.md"),
        ("index.md", "docs/pictures/graph.png", "pictures/graph.png"),
        ("index.md", "examples", "files/examples/index.md"),
        ("files/examples/index.md", "examples/own_loop.py", "files/examples/own_loop.py.md"),
        ("guide.md", "#here", None),
        ("guide.md", "https://example.org", None),
        ("guide.md", "../../outside.md", None),
    ],
)
def test_where_a_link_leads(page: str, link: str, target: str | None) -> None:
    assert target_of(link, page) == target


def test_links_in_blocks_are_text() -> None:
    assert linked("[a](../README.md)\n\n```text\n[a](../README.md)\n```\n", "guide.md") == (
        "[a](index.md)\n\n```text\n[a](../README.md)\n```\n"
    )


def test_words_behind_a_language_are_not_rendered() -> None:
    assert rendered("```brew fragment\nx = y\n```\n") == "```brew\nx = y\n```\n"


@pytest.mark.parametrize("name", [*OPERATIONS, *TRANSFORMS, *TEMPERATURES])
def test_the_page_of_an_operation_has_its_formula(name: str) -> None:
    """As MathML, a line per clause, without LaTeX that the converter does not know."""
    pytest.importorskip("latex2mathml")
    place = next(place_of(entry) for entry in entries() if entry.name == name)
    declared = {**OPERATIONS, **TRANSFORMS, **TEMPERATURES}[name]
    html = rendered(pages()[place])
    assert html.count("<math ") == len(re.findall(r"\\\\ ", pages()[place])) + 1
    assert "\\" not in re.sub(r"```.*?```", "", html, flags=re.DOTALL)
    assert ("<msup>" in html) is any(x in declared.formula for x in "²ᵀ^")


def test_a_folder_that_holds_no_site_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    with pytest.raises(SystemExit, match="holds no site: name another folder"):
        main(tmp_path)
    assert (tmp_path / "mine").read_text() == "text"
