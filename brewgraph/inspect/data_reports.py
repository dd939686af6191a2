"""Reports on the data of a checked spec, row by row, in the tokens of its models. No weight is loaded."""

from __future__ import annotations

from brewgraph.checking.check import Checked
from brewgraph.data.report import DataReport, data_report
from brewgraph.recipe.settings.data_sources import DataSource
from brewgraph.running.data_cache import DataCache
from brewgraph.running.spec_builder import SpecBuilder


def data_reports(checked: Checked) -> dict[str, DataReport]:
    """A report on each data set of a spec, by name. Raises `SpecError` if one cannot be read.

    Lengths are those of the models whose tokenizer is known. An untrained teacher has none: a vocabulary is then learnt
    from this spec's data, as it will be from its own.
    """
    builder = SpecBuilder(checked)
    data_cache = DataCache(builder)
    reports: dict[str, DataReport] = {}
    for name, data in checked.recipe.data.items():
        if data.source.holds_tensors:
            continue  # the check has read their layout, and there is no text
        readers = [m for m, used in checked.facts.data.items() if name in used or not any(checked.facts.data.values())]
        known = {m: facts for m in readers if (facts := checked.facts(checked.recipe.models[m])) is not None}
        modules = {m: facts.shapes.model for m, facts in known.items()}
        encodings = data_cache.encodings(name, list(known), modules)[0] if known else []
        used = any(name in read for read in checked.facts.data.values())
        reports[name] = data_report(
            builder.examples(name),
            encodings,
            label_type=data.source.label_type,
            delimited=any(map(_is_delimited, data.source.sources)),
            batch=data.source.batch if used else None,  # a part of joined data has no batches of its own
        )
    return reports


def _is_delimited(source: DataSource) -> bool:
    """Whether a source is a file in which quotes may enclose fields."""
    may_quote = "quoting" in type(source).model_fields
    return may_quote and source.files["train"].removesuffix(".gz").lower().endswith((".csv", ".tsv"))
