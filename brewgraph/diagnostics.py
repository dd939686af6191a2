"""Faults as values: what is wrong, where, and what to do about it.

    BrewError                 whatever brewgraph raises for a user
    ├── SpecError             the spec is at fault: carries diagnostics        exit 1
    ├── SourceFault           a model or a data set is not as the spec says    becomes a diagnostic at its place
    ├── UsageError            the command or the call is at fault              exit 2
    └── RunError              the run could not go on: one line and a remedy   exit 3

Codes: B0xx text and syntax, B1xx names and settings, B2xx kinds, lists and shapes, B3xx models and taps, B4xx data,
B9xx not supported yet; W for warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from brewgraph.source import Source, Span, visible


@dataclass(frozen=True)
class Label:
    """A secondary place, with a short note."""

    span: Span
    text: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One fault of a spec: `span` is the culprit, `note` the words under the caret, `help` the remedy."""

    code: str
    message: str
    span: Span
    help: str = ""
    note: str = ""
    labels: tuple[Label, ...] = ()

    @property
    def severity(self) -> str:
        return "warning" if self.code.startswith("W") else "error"

    def __str__(self) -> str:
        """As the command prints it: with its place and its remedy."""
        return render(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"\n{render(self)}\n")

    def as_json(self) -> dict[str, Any]:
        """The same facts as JSON: lines and columns count from 1, `end` is exclusive."""

        def place(span: Span) -> dict[str, Any]:
            (line, column), (end_line, end_column) = span.position, span.source.position(span.end)
            return {
                "file": span.source.name,
                "line": line,
                "column": column,
                "end_line": end_line,
                "end_column": end_column,
            }

        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            **place(self.span),
            "note": self.note,
            "help": self.help,
            "labels": [{**place(label.span), "text": label.text} for label in self.labels],
        }


@dataclass(frozen=True)
class Ignore:
    """A comment that silences warnings with one of its `codes` (each with its place) that touch these lines."""

    codes: tuple[tuple[str, Span], ...]
    source: Source = field(repr=False)
    first: int
    last: int

    def covers(self, code: str, diagnostic: Diagnostic) -> bool:
        """Whether the comment applies to this diagnostic, under this code."""
        span = diagnostic.span
        if diagnostic.severity != "warning" or diagnostic.code != code or span.source != self.source:
            return False
        begins, ends = span.position[0], span.source.position(max(span.start, span.end - 1))[0]
        return begins <= self.last and ends >= self.first


class BrewError(Exception):
    """The base of every error that brewgraph raises for its users."""

    exit_code = 3

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show in place of a traceback, whose frames are all brewgraph's own."""
        return [f"{type(self).__name__}: {self}"]


class SpecError(BrewError):
    """The spec is at fault. `diagnostics` holds every fault, in the order of the text."""

    exit_code = 1

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(render(d) for d in self.diagnostics))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.diagnostics,)  # what other processes raise arrives pickled

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class SourceFault(BrewError):
    """A model or data set is not what the spec takes it for. `field` names the argument at fault, where one is.

    It is raised by rooms without spans (models, data); the caller turns it into a diagnostic.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, *, help: str = "", field: str | None = None):
        self.code, self.message, self.help, self.field = code, message, help, field
        super().__init__(f"{message} ({help})" if help else message)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), help=self.help, field=self.field), (self.code, self.message)


@dataclass(frozen=True)
class Refusal:
    """A `SourceFault` as a plain value that can be stored and raised again."""

    code: str
    message: str
    help: str
    field: str | None

    @classmethod
    def of(cls, fault: SourceFault) -> Refusal:
        return cls(fault.code, fault.message, fault.help, fault.field)

    @property
    def fault(self) -> SourceFault:
        return SourceFault(self.code, self.message, help=self.help, field=self.field)


class UsageError(BrewError):
    """The command line or a Python call is at fault."""

    exit_code = 2


class RunError(BrewError):
    """The spec is valid but the run cannot continue (a missing file, a full disk, a label outside the classes)."""

    exit_code = 3


class BrewWarning(UserWarning):
    """A warning of a check on a spec that Python code loads or runs.

    `diagnostic` is the warning as a value. The text begins with its code, so that one kind can be filtered:
    `warnings.filterwarnings("ignore", "W213", brewgraph.BrewWarning)`.
    """

    diagnostic: Diagnostic

    @classmethod
    def of(cls, diagnostic: Diagnostic) -> BrewWarning:
        warning = cls(render(diagnostic).replace(f"warning[{diagnostic.code}]", diagnostic.code, 1))
        warning.diagnostic = diagnostic
        return warning


MOST_ERRORS = 100
"""The number of errors after which a check reads no further."""


@dataclass
class Collector:
    """Collects the diagnostics of one check, and the `ignore` comments of the specs that it reads."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    ignores: list[Ignore] = field(default_factory=list)
    _added: set[Diagnostic] = field(default_factory=set, repr=False)
    _errors: int = 0

    def add(
        self, code: str, message: str, span: Span, *, help: str = "", note: str = "", labels: tuple[Label, ...] = ()
    ) -> None:
        if code == "B901" and not help:
            help = "not supported in this version; remove it"
        message = re.sub(rf"`([^`]{{{_LONGEST_QUOTE + 1},}})`", lambda long: f"`{shortened(long[1])}`", message)
        diagnostic = Diagnostic(code, message, span, help, note, labels)
        if len(self._added) != len(self.diagnostics):
            self._added = set(self.diagnostics)
        if diagnostic in self._added or self.is_full:
            return
        self.diagnostics.append(diagnostic)
        self._added.add(diagnostic)
        self._errors += diagnostic.severity == "error"
        if self.is_full:
            message = f"this is error {MOST_ERRORS}: what follows is not checked"
            self.diagnostics.append(Diagnostic("B015", message, span, "correct these errors first"))

    @property
    def is_full(self) -> bool:
        """Whether there are so many errors that nothing more is added: whoever looks for others may stop."""
        return self._errors >= MOST_ERRORS

    def withdraw(self, code: str, span: Span) -> None:
        """Remove a diagnostic that a later error repeats."""
        self.diagnostics = [d for d in self.diagnostics if (d.code, d.span) != (code, span)]

    @property
    def errors(self) -> list[Diagnostic]:
        return [d for d in self.diagnostics if d.severity == "error"]

    @property
    def failed(self) -> bool:
        return bool(self.errors)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.sorted() if d.severity == "warning")

    def sorted(self) -> list[Diagnostic]:
        """The diagnostics in the order of the text, without silenced warnings."""
        ignored = [(ignore, code) for ignore in self.ignores for code, _ in ignore.codes]
        said = [d for d in self.diagnostics if not any(ignore.covers(code, d) for ignore, code in ignored)]
        return sorted(said, key=lambda d: (d.span.source.name, d.span.start, d.code))

    def raise_errors(self) -> None:
        """Raise one `SpecError` with all diagnostics so far, if any is an error."""
        if self.failed:
            raise SpecError(self.sorted())


_LEAST = 30
"""The fewest characters of a source line to show."""


def _is_slip(one: str, other: str) -> bool:
    """Whether one letter differs (`rum`, `run`), or one holds the other but for numbers (`layers.7`, `x.layers.1`)."""
    if len(one) == len(other) and len(one) > 2 and sum(a != b for a, b in zip(one, other, strict=True)) == 1:
        return True
    shorter, longer = sorted((re.sub(r"\d+", "0", word) for word in (one, other)), key=len)
    return shorter in longer[: len(shorter)] if len(shorter) == 3 else len(shorter) > 3 and shorter in longer


_FAR, _NEAR = 0.6, 0.72
"""The similarity that two words need: `steps` and `stage` have .6, `logit` and `logits` .91."""
_CUT = 3
"""The fewest letters of an abbreviation."""
_LONGEST, _COMPARED = 100, 1000
"""The most letters of a word to compare, and the most known words to compare it with."""


def closest(word: str, known: Iterable[str]) -> tuple[str, float] | None:
    """The known word that is closest to a typo, with its similarity up to 1; None if none is close.

    Case, `-`, `_` and the order of parts (`f1_macro`) count little; abbreviations are close.
    """
    import difflib

    if len(word) > _LONGEST:
        return None
    joined, parts = _parts(word)

    def nearness(other: str) -> float:
        if len(other) > _LONGEST:
            return 0.0
        joined_other, parts_other = _parts(other)
        if joined == joined_other:
            return 1.0
        if len(parts_other) > 1 and parts == parts_other:
            return 0.99
        if len(joined) >= _CUT and joined_other.startswith(joined):
            return 0.98 - len(other) / 1000
        if 2 * min(len(word), len(other)) / (len(word) + len(other)) < _FAR:  # no ratio of the two is larger
            return 0.0
        matcher = difflib.SequenceMatcher(None, word, other)
        if matcher.quick_ratio() < _FAR:
            return 0.0
        ratio = matcher.ratio()
        # below this only letters that changed places are a slip: `mes` for `mse`, and not `steps` for `stage`
        slip = ratio >= _NEAR or (ratio >= _FAR and (sorted(word) == sorted(other) or _is_slip(word, other)))
        return ratio if slip else 0.0

    near = [(other, share) for other in islice(known, _COMPARED) if other != word and (share := nearness(other))]
    return max(near, key=lambda pair: (pair[1], pair[0]), default=None)


@lru_cache(maxsize=2 * _COMPARED)
def _parts(word: str) -> tuple[str, tuple[str, ...]]:
    """A word without case, `-` and `_`, and the parts between these, sorted."""
    parts = re.split("[-_]", word.casefold())
    return "".join(parts), tuple(sorted(parts))


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean `x`?` if a known word is close, else an empty string."""
    near = closest(word, known)
    return f"did you mean `{near[0]}`?" if near else ""


MOST_NAMES = 12
"""How many names of a user's own a message lists."""
_LONGEST_NAME, _LONGEST_QUOTE = 60, 200
"""The most characters of a name in a list, and of what a message quotes: more can be a file or a text, not a word."""


def shortened(text: str, most: int = _LONGEST_NAME) -> str:
    """A text as a message shows it: of a longer one the beginning, and `…`."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def few(words: Iterable[str], most: int = 6) -> str:
    """a, b, c: of more than `most` words the first, and `…`."""
    first = list(islice(words, most + 1))
    return ", ".join([*first[:most], *(["…"] if len(first) > most else [])])


def listing(words: Iterable[str], most: int | None = None) -> str:
    """`a`, `b` and `c`: for help texts; of more than `most` words the first, and how many more there are. Of long words
    it shows the beginning.
    """
    quoted = [f"`{shortened(str(word), _LONGEST_QUOTE)}`" for word in words]
    if most is not None and len(quoted) > most:
        quoted[most:] = [f"{len(quoted) - most} more"]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else "".join(quoted)


def render(diagnostic: Diagnostic, paint: Any = None, width: int | None = None) -> str:
    """The diagnostic as text: head, place, the lines with carets, help.

    `paint(text, role)` colours a piece (roles: `error`, `warning`, `place`, `second`, `help`); default: plain. Where
    there is a `width`, words go on in the next line, and of longer lines of source the part with the marks is shown.
    """
    paint = paint or (lambda text, role: text)
    severity = diagnostic.severity
    line, column = diagnostic.span.position
    marks = [(diagnostic.span, "^", visible(diagnostic.note))]
    marks += [(x.span, "-", visible(x.text)) for x in diagnostic.labels]
    here = [m for m in marks if m[0].source == diagnostic.span.source]
    rows = sorted({m[0].position[0] for m in here})
    gutter = len(str(max(rows)))
    bar = paint(" " * gutter + " |", "place")
    out = [
        paint(f"{severity}[{diagnostic.code}]", severity)
        + _words(f": {visible(diagnostic.message)}", len(f"{severity}[{diagnostic.code}]"), 4, width),
        paint(" " * gutter + "--> ", "place") + f"{visible(diagnostic.span.source.name)}:{line}:{column}",
        bar,
    ]
    for row in rows:
        text = visible(diagnostic.span.source.line(row))
        begin, shown = _cut(text, [m for m in here if m[0].position[0] == row], width and width - gutter - 3)
        out.append(paint(f"{row:>{gutter}} |", "place") + f" {shown}")
        out.extend(bar + " " + under for under in _underline(shown, row, here, severity, paint, begin))
    for span, _, words in marks:
        if span.source != diagnostic.span.source:
            at_line, at_column = span.position
            out.append(
                paint(" " * gutter + " = ", "place") + f"{words} {visible(span.source.name)}:{at_line}:{at_column}"
            )
    if diagnostic.help:
        words = _words(visible(diagnostic.help), gutter + 9, gutter + 9, width)
        out += [bar, paint(" " * gutter + " = ", "place") + paint("help: ", "help") + words]
    return "\n".join(out)


def _words(text: str, before: int, hang: int, width: int | None) -> str:
    """The text after `before` characters, wrapped, with further lines indented by `hang`."""
    if width is None or before + len(text) <= width:
        return text
    import textwrap

    lines = textwrap.wrap(
        "x" * before + text, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)[before:]


def _cut(text: str, marks: list, room: int | None) -> tuple[int, str]:
    """Where the visible part of a source line starts, and that part, with `…` where it is cut."""
    if room is None or len(text) <= room or room < _LEAST:
        return 0, text
    first = min(span.position[1] - 1 for span, _, _ in marks)
    last = max(span.position[1] - 1 + span.end - span.start + len(words) + 1 for span, _, words in marks)
    begin = 0 if last < room else max(0, min(first - 1, last - room + 1))
    part = text[begin : begin + room]
    return begin, ("…" if begin else part[0]) + part[1:-1] + ("…" if begin + room < len(text) else part[-1:])


def _underline(text: str, row: int, marks: list, severity: str, paint: Any, begin: int = 0) -> list[str]:
    """The caret lines under one source line: notes follow their marks if they fit, else go below them."""
    spots = []
    for span, sign, words in marks:
        if span.position[0] == row:
            start = span.position[1] - 1 - begin
            width = max(1, min(span.end - span.start, len(text) - start))
            spots.append((start, width, sign, words))
    spots.sort()
    column, painted = 0, ""
    below = []
    for i, (start, width, sign, words) in enumerate(spots):
        role = severity if sign == "^" else "second"
        if start < column:
            below.append(_indent(text, 0, start) + paint(words, role))
            continue
        painted += _indent(text, column, start) + paint(sign * width, role)
        column = start + width
        room = spots[i + 1][0] - column if i + 1 < len(spots) else len(words) + 2
        if words and len(words) + 2 <= room:
            painted += " " + paint(words, role)
            column += 1 + len(words)
        elif words:
            below.append(_indent(text, 0, start) + paint(words, role))
    return [painted, *below]


def _indent(text: str, start: int, end: int) -> str:
    """White space as wide as a part of the line; tabs are kept."""
    return "".join("\t" if c == "\t" else " " for c in text[start:end].ljust(end - start))
