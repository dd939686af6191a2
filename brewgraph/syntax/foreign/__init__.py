"""What other tools call things, and what to write here instead: one table, asked before near names are looked for.

An entry holds what to write here, as it could stand in a spec, and a remark: why there is no such thing, what else to
know. Words are in the table under the place where people write them (`TABLE`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

from brewgraph.diagnostics import closest
from brewgraph.syntax.foreign.entry import Instead, as_param

__all__ = ["TABLE", "Instead", "from_outside", "instead"]


class _Tables(Mapping[str, Mapping[str, Instead]]):
    """The words by the place where they stand, read when one is first looked for: most specs hold none."""

    @cached_property
    def _all(self) -> dict[str, Mapping[str, Instead]]:
        from brewgraph.syntax.foreign import (
            command,
            equation_words,
            setting_words,
            source_words,
            statements,
            textbrewer,
        )

        return {
            "setting": setting_words.SETTINGS,
            "own setting": setting_words.OWN,
            "optimizer": setting_words.OPTIMIZERS,
            "schedule": setting_words.SCHEDULES,
            "metric": setting_words.METRICS,
            "call": equation_words.CALLS,
            "option": equation_words.OPTIONS,
            "feature": equation_words.FEATURES,
            "name": equation_words.NAMES,
            "projection": equation_words.PROJECTIONS,
            "model source": source_words.MODELS,
            "data source": source_words.DATA,
            "argument": source_words.ARGUMENTS,
            "configuration": source_words.CONFIGURATION,
            "statement": {**statements.STATEMENTS, **statements.WORDS},
            "word": statements.WORDS,
            "command": command.COMMANDS,
            "command option": command.OPTIONS,
            "configuration of TextBrewer": textbrewer.CONVERTED,
        }

    def __getitem__(self, place: str) -> Mapping[str, Instead]:
        return self._all[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


TABLE = _Tables()
"""Where a word stands -> the word -> what to write instead."""

_KNOWN_ONLY = ("argument", "option", "metric", "configuration", "command option")
"""Places where a word is offered only where it is known: sources, operations and commands take different ones."""

_LONG, _SURE, _CLEAR = 4, 0.8, 0.8
"""Letters of a foreign word that is recognized although it is written otherwise, how near it has to be, and how near a
known word is that comes before any.
"""


def instead(place: str, word: str, known: Iterable[str] = ()) -> str:
    """The remedy for a word that is not known at this place: what other tools mean by it, else a near known word.

    Empty where neither is there. `known` are the words of this place, here.
    """
    names = list(known)
    entries = {x: entry for x, entry in TABLE.get(place, {}).items() if _is_offered(place, entry, names)}
    if word in entries:
        return entries[word].help
    near, foreign = closest(word, names), closest(word, (x for x in entries if len(x) >= _LONG))
    if foreign and foreign[1] >= _SURE and (near is None or near[1] < min(foreign[1], _CLEAR)):
        return entries[foreign[0]].help
    return f"did you mean `{near[0]}`?" if near else ""


def _is_offered(place: str, entry: Instead, names: Collection[str]) -> bool:
    return place not in _KNOWN_ONLY or not entry.write or entry.write.partition("=")[0].split()[0] in names


def from_outside(word: str) -> str:
    """The remedy for a setting that is given with the command: in the spec, by a param. Empty for what is none."""
    entry = TABLE["own setting"].get(word) or TABLE["setting"].get(word)
    if entry is None:
        return ""
    if entry.write:
        return "it is a setting of the spec: " + as_param(entry.write, "train {{ {} }}")
    return f"{entry.remark}: {as_param(entry.elsewhere)}" if entry.elsewhere else entry.remark
