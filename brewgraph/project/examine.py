"""The data of a checked spec, looked at row by row, in the tokens of its models; no weight is loaded."""

from __future__ import annotations

from brewgraph.data.report import DataReport, data_report
from brewgraph.project.build import Workshop
from brewgraph.project.check import Checked


def examine_data(checked: Checked) -> dict[str, DataReport]:
    """What is found in each data set of a spec, by its name. Raises `SpecError` where one cannot be read.

    Lengths are those of the models whose tokenizer is known. A teacher that is yet to be trained has none: a vocabulary
    is then learnt from this spec's data, as it will be from its own.
    """
    workshop = Workshop(checked)
    known = {
        name: facts for name, model in checked.recipe.models.items() if (facts := checked.facts(model)) is not None
    }
    modules = {name: facts.shapes.model for name, facts in known.items()}
    encodings = workshop.encodings(list(known), modules)[0] if known else []
    return {name: data_report(workshop.examples, encodings) for name in checked.recipe.data}
