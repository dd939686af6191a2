"""Builds the documentation as a site: `python docs/build.py [FOLDER]`, by default into site/.

The pages of docs/ and those that are made from the repository are put together in build/site, with the navigation of
mkdocs.yml, and rendered from there. An operation's page is `brewgraph ops NAME --format markdown`, a code's that of
`brewgraph explain CODE`. The README is the first page. Specs, examples and scripts that a page links to have a page
with their text. Links are written as a Git host resolves them, from file to file of the repository. Formulas are
MathML: a page needs no script for them.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from brewgraph.cli.ops import Entry, entries, table_page
from brewgraph.explanations import CODES, FAMILIES, SETTING, family, page_of

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
PUBLISHED = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "grammar/README.md": "language.md",
}
"""Pages of the repository outside docs/: where each stands in the site."""
SHOWN = {".brew": "brew", ".py": "python", ".lark": "text", ".json": "json", ".toml": "toml", ".yaml": "yaml"}
"""Files that have a page of their own where another page links to them, by the language of their text."""
_MOST = 10
"""The most faults on the page of a code."""
_FENCED = re.compile(r"^( *)(`{3,}).*?^\1\2`*\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FETCHED = re.compile(r"""<(?:script|img|iframe|link rel="stylesheet")[^>]* (?:src|href)="?(?:https?:)?//""")


# ── pages made from the package ──────────────────────────────────────────────────────────────────────────────────────


def place_of(entry: Entry) -> str:
    """The file of an entry of `brewgraph ops` in the site."""
    words = re.findall(r"[a-z]+", entry.section) or ["models"]
    section = words[1] if words[0] == "train" else words[0]
    return f"operations/{section}/{entry.name}.md"


def pages() -> dict[str, str]:
    """The Markdown of every page that is made, by its file in the site."""
    made = {PUBLISHED[name]: (REPOSITORY / name).read_text(encoding="utf-8") for name in PUBLISHED}
    made["index.md"] = f"---\nhide: [navigation, toc]\n---\n\n{made['index.md']}"
    index = table_page(lambda entry: f"[`{entry.name}`]({posixpath.relpath(place_of(entry), 'operations')})")
    made["operations/index.md"] = "\n".join(index) + "\n"
    for entry in entries():
        if entry.name != "train":  # docs/settings.md
            made[place_of(entry)] = "\n".join(entry.markdown()) + "\n"
    made["operations/settings/train.md"] = "# train\n\nAll settings: [settings of training](../../settings.md).\n"
    made["codes/index.md"] = "\n".join(_codes()) + "\n"
    faults_of = _faults_by_code()
    for code, line in CODES.items():
        page = page_of(code)
        before = f"\n{SETTING}\n\n## Wrong"
        text = page.text if page else _without_page(code, line)
        if page and page.wrong.kind != "json":  # which is no spec
            text = text.replace("\n## Wrong", before, 1)
        text, source, rest = text.partition("\n## Source")
        made[f"codes/{code}.md"] = "\n".join([text, *_fault_table(faults_of.get(code, []))]) + f"\n{source}{rest}\n"
    return made


def _codes() -> Iterator[str]:
    yield from ("# Codes", "", "`brewgraph explain CODE` prints these pages. B: errors. W: warnings, which a comment")
    yield "`# brew: ignore[CODE] reason` silences for a line or a statement."
    for number, words in FAMILIES.items():
        yield from ("", f"## {words.capitalize()}", "", "| | |", "|---|---|")
        yield from (f"| [{code}]({code}.md) | {line} |" for code, line in CODES.items() if code[1] == number)


def _without_page(code: str, line: str) -> str:
    return f"# {code}: {line}\n\nFamily: {family(code)}. The `help` of the diagnostic says what to do."


def _faults_by_code() -> dict[str, list[tuple[str, str, str]]]:
    """The rows of docs/faults.md, which a test writes: what the fault is, a line that has it, the message."""
    faults: dict[str, list[tuple[str, str, str]]] = {}
    for line in (DOCS / "faults.md").read_text(encoding="utf-8").splitlines():
        cells = re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |"))
        if len(cells) == 4 and (code := re.match(r"[BW]\d{3}", cells[2])):
            faults.setdefault(code[0], []).append((cells[0], cells[1], cells[3]))
    return faults


def _fault_table(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """The first faults of a code."""
    if rows:
        yield from ("", "## Faults that a check finds", "", "| fault | written | message |", "|---|---|---|")
        yield from (f"| {' | '.join(row)} |" for row in rows[:_MOST])
    if len(rows) > _MOST:
        yield from ("", f"{len(rows) - _MOST} more are in [the list of all faults](../faults.md).")


# ── links and files of the repository ────────────────────────────────────────────────────────────────────────────────


def origin(page: str) -> str:
    """The file of the repository from which a page of the site is taken."""
    taken = {site: name for name, site in PUBLISHED.items()}
    if page.startswith("files/"):
        name = page.removeprefix("files/")
        return name if (REPOSITORY / name).is_file() else name.removesuffix(".md").removesuffix("/index")
    return taken.get(page, f"docs/{page}")


def target_of(link: str, page: str) -> str | None:
    """The page or file of the site that a link of a page means; None for a link that needs no change."""
    path, _, _ = link.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return None
    name = posixpath.normpath(posixpath.join(posixpath.dirname(origin(page)), path))
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if name in PUBLISHED:
        return PUBLISHED[name]
    place = REPOSITORY / name
    if name.startswith("..") or not place.exists():
        return None
    if place.is_dir():
        return f"files/{name}/index.md"
    return f"files/{name}" if place.suffix == ".md" else f"files/{name}.md"


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """A text with its parts outside code blocks changed."""
    parts: list[str] = []
    at = 0
    for block in _FENCED.finditer(text):
        parts += [change(text[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, change(text[at:])])


def linked(text: str, page: str) -> str:
    """A page with links that lead to pages of the site."""

    def one(match: re.Match[str]) -> str:
        target = target_of(match[2], page)
        if target is None:
            return match[0]
        _, hash_sign, anchor = match[2].partition("#")
        relative = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return f"{match[1]}{relative}{hash_sign}{anchor}{match[3]}"

    return outside_fences(text, lambda part: _LINK.sub(one, part))


def sources(texts: Mapping[str, str]) -> dict[str, str]:
    """Pages for the files and folders outside docs/ that pages link to, and for those that they link to in turn."""
    made: dict[str, str] = {}
    waiting = list(texts.items())
    while waiting:
        page, text = waiting.pop()
        for _, link, _ in _LINK.findall(_FENCED.sub("", text)):
            target = target_of(link, page)
            if target and target.startswith("files/") and target not in made:
                made[target] = _source_page(origin(target))
                waiting.append((target, made[target]))
    return made


def _source_page(name: str) -> str:
    place = REPOSITORY / name
    if place.is_dir():
        inside = sorted(p for p in place.iterdir() if p.suffix in SHOWN or p.suffix == ".md")
        lines = [f"- [{p.name}]({place.name}/{p.name})" for p in inside]
        return "\n".join([f"# {name}", "", *lines, ""])
    text = place.read_text(encoding="utf-8")
    return text if place.suffix == ".md" else f"# {name}\n\n````{SHOWN.get(place.suffix, 'text')}\n{text}````\n"


# ── the site ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def texts() -> dict[str, str]:
    """The Markdown of every page, by its file in the site, with links as the site needs them."""
    written = {
        path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))
    }
    every = {**written, **pages()}
    every |= sources(every)
    return {page: linked(text, page) for page, text in every.items()}


def navigation(items: list[Any], every: Iterable[str]) -> list[Any]:
    """The navigation with `operations/`, `codes/` and `files/` replaced by the pages of these folders."""
    members: list[Any] = []
    for item in items:
        if item == "operations/":
            members.append({"Operations and sources": ["operations/index.md", *_grouped(every, item)]})
        elif item == "codes/":
            members.append("codes/index.md")
            for number, words in FAMILIES.items():
                titles = {c: f"{c}: {line}".replace("`", "") for c, line in CODES.items() if c[1] == number}
                members.append({words.capitalize(): [{title: f"codes/{c}.md"} for c, title in titles.items()]})
        elif item == "files/":
            members.append({"Specs and scripts": _grouped(every, item)})
        elif isinstance(item, dict):
            members.append({k: navigation(v, every) if isinstance(v, list) else v for k, v in item.items()})
        else:
            members.append(item)
    return members


def _grouped(every: Iterable[str], folder: str) -> list[Any]:
    """The pages below a folder, by the folders in it."""
    groups: dict[str, list[Any]] = {}
    for page in every:
        if page.startswith(folder) and page != f"{folder}index.md":
            inside = posixpath.dirname(page).removeprefix(folder)
            name = posixpath.basename(page).removesuffix(".md")
            groups.setdefault(inside, []).append(page if name == "index" else {name: page})
    return [{title.capitalize() if folder == "operations/" else title: rows} for title, rows in groups.items()]


def in_navigation(items: Any) -> Iterator[str]:
    """The pages that a navigation names."""
    if isinstance(items, str):
        yield items
    for item in items.values() if isinstance(items, dict) else items if isinstance(items, list) else ():
        yield from in_navigation(item)


def faults(nav: list[Any], every: Iterable[str]) -> Iterator[str]:
    """Pages that no reader would find, and entries of the navigation without a page."""
    pages, named = set(every), set(in_navigation(nav))
    for page in sorted(pages - named):
        yield f"docs/{page} is in no navigation: add it to `nav` in mkdocs.yml, where a reader would look for it"
    for page in sorted(named - pages):
        yield f"`nav` in mkdocs.yml names {page}, which does not exist: remove it, or write docs/{page}"


def rendered(text: str) -> str:
    """A page with formulas as MathML; of the words behind a block's language, which tests read, only the language."""
    text = re.sub(r"^```math\n(.*?)\n```$", lambda block: formula(block[1]), text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^( *`{3,}\w+) [^\n`]*$", r"\1", text, flags=re.MULTILINE)


def formula(source: str) -> str:
    """A block of LaTeX as MathML, a line per clause."""
    from latex2mathml.converter import convert

    body = source.strip().removeprefix(r"\begin{gathered}").removesuffix(r"\end{gathered}")
    clauses = [convert(clause.strip(), display="block") for clause in body.split(r"\\")]
    return f'<div class="formula">{"".join(clauses)}</div>'


def assemble(folder: Path) -> Path:
    """Writes the pages and the configuration that the site is rendered from, and returns the configuration."""
    import yaml

    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    every = texts()
    config["nav"] = navigation(config["nav"], every)
    if wrong := list(faults(config["nav"], every)):
        sys.exit("\n".join(wrong))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("*.md", "*.py", "__pycache__"))
    for page, text in every.items():
        place = folder / "docs" / page
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(rendered(text), encoding="utf-8")
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return folder / "mkdocs.yml"


def check_rendered(folder: Path) -> None:
    """Ends with a message if a page loads something from the network, or if specs have no colours."""
    if '<span class="kd">' not in (folder / "index.html").read_text(encoding="utf-8"):
        sys.exit("specs have no colours: Pygments does not know `brew`; install brewgraph again, `pip install -e .`")
    for path in sorted(folder.rglob("*.html")):
        fetched = _FETCHED.search(path.read_text(encoding="utf-8"))
        if fetched:
            sys.exit(f"{path.relative_to(folder)} loads {fetched[0]}…: keep it in docs/assets")


def main(target: Path) -> None:
    """Assembles, renders with every warning an error, checks, and moves the site to its place."""
    if target.exists() and not (target / "sitemap.xml").is_file():
        sys.exit(f"{target} exists and holds no site: name another folder")
    work = REPOSITORY / "build" / "site"
    config = assemble(work)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(config)]
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    check_rendered(work / "site")
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(work / "site", target)
    print(f"wrote {target}/index.html")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "site")
