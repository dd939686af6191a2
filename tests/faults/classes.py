"""All entries by class: the mutations, and what stands in the other tables beside them or in classes of its own."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.agreement import AGREEMENT
from tests.faults.meaning import MEANING, SENSE
from tests.faults.mutations import MUTATIONS, Class
from tests.faults.table import HEADS, NAMES, SHAPES, Change, Pair

BESIDE = {
    "a layer that is not there": ("layer out of range", "layer of a map out of range", "rows of two stacks"),
    "a path that the model does not have": ("path of a tap", "frozen module that is not there"),
    "a module that never runs": (
        "tap of a ModuleList",
        "module that is never called",
        "module that a forward passes by",
    ),
    "sides swapped": ("arrow turned round",),
    "widths without a projection": (
        "widths",
        "width of a projection",
        "projection outside an arrow",
        "both sides projected",
    ),
    "numbers of heads that differ": ("heads",),
    "a column that was renamed": ("missing column", "missing label column", "column that is not there"),
    "tokens of another tokenizer": ("words beside tokens", "tokens and words", "joined tokens of two tokenizers"),
    "classes in another order": ("order of classes",),
    "another number of classes": ("classes",),
    "a schedule past the end of training": ("schedule past the end",),
    "a schedule that never moves, a temperature that vanishes": ("temperature of zero",),
    "an element of a module's output that is not there": (
        "element that is None",
        "element out of range",
        "element where there is one tensor",
        "several tensors in a tuple",
    ),
    "classes of averaged teachers": ("averaged classes of other names", "averaged teachers in a list of other names"),
    "logits over other vocabularies": (
        "logits over two vocabularies",
        "averaged logits over two vocabularies",
        "words of two vocabularies",
        "vocabulary too small for its tokenizer",
    ),
    "arguments of a forward, too few or too many": ("argument that nobody gives", "argument that the forward lacks"),
}
"""Entries of the other tables that belong to a class of mutations."""
OTHERS = {
    ("text that does not parse", "ten faults give ten diagnostics"): ("B00", "B01", "B104"),
    ("a name that is not there, or not in this place", "a misspelt key that nobody reads"): ("B101", "B102", "B103"),
    ("names given twice, params, circles", "torchdistill #140: long configurations in which names repeat"): (
        "B105", "B106", "B108", "B109",
    ),
    ("statements out of place, tasks and stages", "torchdistill #181, mmrazor #597: stages and tasks by hand"): (
        "B107", "B110", "B111", "B112", "B113", "B114", "B115", "B116", "B117",
    ),
    ("arguments and settings", "TextBrewer #12, #45, #49: recipes that cannot be reproduced by their settings"): ("B12",),
    ("lists, layer maps and indices", "TextBrewer #10, #59"): ("B201", "B203", "B205", "B206"),
    ("values of another kind", "TextBrewer #98: a value that only looks like what a function takes"): (
        "B202", "B209", "B210", "B212",
    ),
    ("numbers that cannot be joined, losses that are none", "EasyDistill #34: a loss divided twice by its mask"): (
        "B204", "B207", "B208", "B211", "B213",
    ),
    ("masks, units, axes and data that do not fit", "TRL #4719: means over the wrong units; mmrazor #67: different views"): (
        "B217", "B219", "B220", "B221",
    ),
    ("models that cannot be built", "TextBrewer #13, #81: models that load otherwise than was thought"): ("B3",),
    ("data that cannot be read", "TextBrewer #85, #112: errors of a collator at the first batch"): ("B118", "B4"),
    ("not supported yet", "what would be passed over in silence elsewhere"): ("B9",),
}  # fmt: skip
"""Classes of the other tables, by the first characters of their codes."""
TABLES: tuple[Pair | Change, ...] = (*NAMES, *SHAPES, *HEADS, *MEANING, *SENSE, *AGREEMENT)


def classes() -> list[Class]:
    """Every class with all its entries, those of the other tables behind the mutations."""
    names = {what: title for title, words in BESIDE.items() for what in words}
    found = [
        replace(c, entries=(*c.entries, *(e for e in TABLES if names.get(e.what) == c.title)))  # type: ignore[arg-type]
        for c in MUTATIONS
    ]
    for (title, trips), codes in OTHERS.items():
        mine = tuple(e for e in TABLES if e.what not in names and e.code.startswith(codes))
        found.append(Class(title, trips, mine))  # type: ignore[arg-type]
    return found
