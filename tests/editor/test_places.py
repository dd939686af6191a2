"""Places in a text: what editors count, and where a stretch is after an edit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from brewgraph.editor.places import UNITS, Change, Text

WORDS = some.text(alphabet="ab\n😀é", max_size=30)


@given(WORDS, some.sampled_from(sorted(UNITS)))
def test_every_offset_has_its_place(text: str, unit: str):
    """Offset to place and back is the same offset, in every unit."""
    here = Text(text, unit)
    assert [here.offset(*here.place(i)) for i in range(len(text) + 1)] == list(range(len(text) + 1))


@pytest.mark.parametrize(("unit", "column"), [("utf-8", 7), ("utf-16", 5), ("utf-32", 4)])
def test_columns_are_counted_in_the_agreed_unit(unit: str, column: int):
    """An emoji is four bytes, two units of UTF-16, one code point."""
    assert Text("x\n# 😀y", unit).place(6) == (1, column)


def test_places_that_a_text_lacks_are_clamped():
    """A line or column beyond the text is the nearest place; the end of a line with `\\r\\n` is before both."""
    here = Text("ab\r\nc")
    assert [here.offset(0, 99), here.offset(9, 9), here.offset(1, 9)] == [2, 5, 5]


@given(WORDS, WORDS)
def test_a_change_carries_what_it_does_not_touch(old: str, new: str):
    """The stretch between two texts is exactly what differs, and all other characters are found again."""
    change = Change.between(old, new)
    assert old[: change.start] + new[change.start : change.start + change.length] + old[change.end :] == new
    for i in range(len(old)):
        place = change.carry(i, i + 1)
        assert (place is None) == (change.start <= i < change.end) or place is not None
        if place is not None:
            assert new[slice(*place)] == old[i]
            assert change.back(place[0]) in (i, change.start)
