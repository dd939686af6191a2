"""What other tools call things, and what to write here instead: one table, asked before near names are looked for.

An entry holds what to write here, as it could stand in a spec, and a remark: why there is no such thing, what else to
know. Words are in the table under the place where people write them (`TABLE`).
"""

from __future__ import annotations

from collections.abc import Iterable

from brewgraph.diagnostics import suggest
from brewgraph.syntax.foreign import command, equations, sources, statements, textbrewer, training
from brewgraph.syntax.foreign.entry import Instead, as_param

__all__ = ["TABLE", "Instead", "from_outside", "instead"]

TABLE = {
    "setting": training.SETTINGS,
    "optimizer": training.OPTIMIZERS,
    "schedule": training.SCHEDULES,
    "metric": training.METRICS,
    "call": equations.CALLS,
    "option": equations.OPTIONS,
    "feature": equations.FEATURES,
    "name": equations.NAMES,
    "projection": equations.PROJECTIONS,
    "model source": sources.MODELS,
    "data source": sources.DATA,
    "argument": sources.ARGUMENTS,
    "configuration": sources.CONFIGURATION,
    "statement": {**statements.STATEMENTS, **statements.WORDS},
    "word": statements.WORDS,
    "command": command.COMMANDS,
    "command option": command.OPTIONS,
    "configuration of TextBrewer": textbrewer.CONVERTED,
}
"""Where a word stands -> the word -> what to write instead."""

_KNOWN_ONLY = ("argument", "option", "metric", "configuration", "command option")
"""Places where a word is offered only where it is known: sources, operations and commands take different ones."""


def instead(place: str, word: str, known: Iterable[str] = ()) -> str:
    """The remedy for a word that is not known at this place: what other tools mean by it, else a near known word.

    Empty where neither is there. `known` are the words of this place, here.
    """
    names = list(known)
    entry = TABLE.get(place, {}).get(word)
    if entry and entry.write and place in _KNOWN_ONLY and entry.write.partition("=")[0].split()[0] not in names:
        entry = None
    return entry.help if entry else suggest(word, names)


def from_outside(word: str) -> str:
    """The remedy for a setting that is given with the command: in the spec, by a param. Empty for what is none."""
    own = training.OWN.get(word)
    entry = own or training.SETTINGS.get(word)
    if entry is None:
        return ""
    if entry.write:
        return "it is a setting of the spec: " + as_param(entry.write, "train {{ {} }}")
    return f"{entry.remark}; {as_param(entry.elsewhere)}" if entry.elsewhere else entry.remark
