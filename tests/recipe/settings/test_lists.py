"""A text in place of a list: refused with what is expected, or one item; never read letter by letter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from brewgraph.recipe.settings import augmentations, data_sources, model_sources, train  # noqa: F401  whose settings
from brewgraph.recipe.settings.base import Settings


def below(of: type[Settings]) -> Iterator[type[Settings]]:
    """All settings of the language."""
    for settings in of.__subclasses__():
        if settings.__module__.startswith("brewgraph."):
            yield settings
            yield from below(settings)


LISTS = [
    (settings, name)
    for settings in dict.fromkeys(below(Settings))
    for name, field in settings.model_fields.items()
    if "tuple[" in str(field.annotation)
]


@pytest.mark.parametrize(("settings", "name"), LISTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_text_is_not_read_letter_by_letter(settings: type[Settings], name: str) -> None:
    """`label="abc"` is one column."""
    field = settings.model_fields[name]
    try:
        value = TypeAdapter(Annotated[field.annotation, "", *field.metadata]).validate_python("abc")
    except ValidationError:
        return
    assert value in ("abc", ("abc",))


def test_one_tracker_is_a_list_of_one() -> None:
    assert train.Train.model_validate({"trackers": "wandb"}).trackers == ("wandb",)
