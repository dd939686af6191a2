"""What is said of a data set: counts that are known by hand, of every kind of labels, and of real data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from brewgraph.data.encoding.encode import Encoding
from brewgraph.data.report import DataReport, Lengths, Overlap, RowCount, data_report, lines
from brewgraph.data.sources.examples import Examples, open_examples
from brewgraph.recipe.label_types import CLASSES, MASKED, NEXT, SPANS, TAGS, VALUE
from brewgraph.recipe.settings.data_sources import Files

NAMES = ("no", "yes")


def examples(classes: tuple[str, ...] = NAMES, **splits: dict[str, list[Any]]) -> Examples:
    """Splits as `open_examples` makes them."""
    made = {}
    for name, columns in splits.items():
        rows = len(next(iter(columns.values())))
        made[name] = datasets.Dataset.from_dict({**columns, "index": list(range(rows))})
    return Examples(made, classes, "print")


def texts(*rows: str, label: list[Any] | None = None) -> dict[str, list[Any]]:
    """The columns of a split with one text, and with labels where there are such."""
    return {"text_0": list(rows), **({} if label is None else {"label": label})}


def by_space(max_length: int) -> Encoding:
    """A token for each word, and one on either side; punctuation and case make no difference to the count."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[SEP]")
    return Encoding("spaces", tokenizer, max_length)


def warned(report: DataReport, part: str) -> str:
    """The one warning with these words."""
    (found,) = [warning for warning in report.warnings if part in warning]
    return found


SOUND = texts("a", "b", "c", "d", label=[0, 1, 0, 1])


def test_nothing_to_say_of_sound_data() -> None:
    """Rows and labels are counted; there are no warnings; the text is a line for each split."""
    report = data_report(examples(train=SOUND, dev=texts("e", "f", "g", label=[0, 1, 1])))
    assert report.label_type == "class"
    assert report.splits["train"].labels == {"no": 2, "yes": 2}
    assert report.splits["dev"].labels == {"no": 1, "yes": 2}
    assert report.overlaps == (Overlap("dev", RowCount(), ()),)
    assert report.warnings == ()
    assert list(lines(report)) == [
        "train  4 rows; no 2 (50.0%), yes 2 (50.0%)",
        "dev    3 rows; yes 2 (66.7%), no 1 (33.3%)",
    ]


def test_copies_and_contradictions() -> None:
    """White space and case make no difference, another label does; rows are counted from 1."""
    train = texts("A  cat", "a dog", "a cat ", "A\tDOG", "a dog", label=[0, 0, 0, 1, 0])
    report = data_report(examples(train=train, dev=SOUND))
    assert report.splits["train"].repeated == RowCount(3, (3, 4, 5))
    assert report.splits["train"].contradicting == RowCount(1, (4,))
    assert warned(report, "earlier row: ") == (
        "3 of 5 rows of train (60.0%; rows 3, 4, 5) have the texts of an earlier row: remove the copies, or those "
        "texts weigh more"
    )
    assert warned(report, "another label") == (
        "1 of 5 rows of train (20.0%; row 4) has another label than an earlier row with the same texts: "
        "correct them or remove both"
    )


def test_few_copies_are_counted_and_no_warning() -> None:
    """One in twenty-one is below a twentieth."""
    train = texts(*map(str, range(20)), "0", label=[0, 1] * 10 + [0])
    report = data_report(examples(train=train, dev=SOUND))
    assert report.splits["train"].repeated == RowCount(1, (21,))
    assert report.warnings == ()
    assert "       1 (4.8%) with the texts of an earlier one: row 21" in list(lines(report))


def test_rows_of_dev_in_train() -> None:
    """Dev and test are compared with train, pairs as pairs; a row of train is named for each."""
    train = {"text_0": ["a", "a", "c"], "text_1": ["x", "y", "z"], "label": [0, 1, 0]}
    dev = {"text_0": ["A", "a", "y", "c"], "text_1": ["Y", "z", "a", " z"], "label": [0, 1, 0, 1]}
    test = {"text_0": ["ax"], "text_1": ["q"], "label": [0]}
    report = data_report(examples(train=train, dev=dev, test=test))
    assert report.overlaps == (Overlap("dev", RowCount(2, (1, 4)), (2, 3)), Overlap("test", RowCount(), ()))
    assert report.splits["train"].repeated == RowCount()
    again = examples(train=texts("b", "a", "a", label=[0, 1, 1]), dev=texts("a", "b", label=[1, 0]))
    assert data_report(again).overlaps[0].train == (2, 1), "of several the first"
    assert warned(report, "too good") == (
        "2 of 4 rows of dev (50.0%; rows 1, 4) have the texts of a row of train, and figures will be too good: "
        "remove these rows from train"
    )


@pytest.mark.parametrize(("rows", "says"), [(100, False), (99, True)])
def test_a_hundredth_of_dev_may_leak(rows: int, says: bool) -> None:
    """One row of a hundred is no warning, one of ninety-nine is."""
    dev = texts(*(f"dev {i}" for i in range(rows - 1)), "a", label=[0, 1] * (rows // 2) + [0] * (rows % 2))
    report = data_report(examples(train=SOUND, dev=dev))
    assert report.overlaps[0].rows == RowCount(1, (rows,))
    assert any("too good" in warning for warning in report.warnings) is says


def test_empty_texts_and_missing_labels() -> None:
    """A pair with one blank text is empty; blank rows are no copies of each other; -1 is no label."""
    train = {"text_0": ["a", " ", "", ""], "text_1": ["x", "y", "", ""], "label": [0, 1, 0, -1]}
    report = data_report(examples(train=train, dev=SOUND | {"text_1": ["x"] * 4}))
    split = report.splits["train"]
    assert (split.empty, split.unlabelled, split.repeated) == (RowCount(3, (2, 3, 4)), RowCount(1, (4,)), RowCount())
    assert split.labels == {"no": 2, "yes": 1}
    assert warned(report, "no words").startswith("3 of 4 rows of train (75.0%; rows 2, 3, 4) have no words in a text: ")
    assert warned(report, "no label") == (
        "1 of 4 rows of train (25.0%; row 4) has no label: fill it in or remove the rows"
    )


def test_classes_without_examples() -> None:
    """In train nothing can be learnt of one; in dev a class counts that train has."""
    report = data_report(
        examples(("a", "b", "c", "d"), train=texts("1", "2", "3", label=[0, 1, 2]), dev=texts("4", label=[0]))
    )
    assert warned(report, "train has no example") == (
        "train has no example of the class `d`: add some, or leave it out of the labels"
    )
    assert warned(report, "dev has no example") == (
        "dev has no example of the classes `b` and `c`, and no figure will tell how well it is learnt: add some"
    )


@pytest.mark.parametrize(("many", "says"), [(9, False), (10, True)])
def test_uneven_classes(many: int, says: bool) -> None:
    """Ten to one is a warning that offers weights."""
    train = texts(*map(str, range(many + 1)), label=[0] * many + [1])
    report = data_report(examples(train=train, dev=texts("x", "y", label=[0, 1])))
    assert bool(report.warnings) is says
    if says:
        assert warned(report, "class_weights").startswith("train has 10 rows of `no` and 1 of `yes`: weigh the classes")


def test_no_dev_split() -> None:
    """Nothing will be evaluated."""
    assert warned(data_report(examples(train=SOUND)), "dev=") == (
        "there is no dev split, so nothing is evaluated: name one with `dev=`"
    )


def test_lengths() -> None:
    """Of 3, 5 and 4 tokens with the special ones: one above 4, which is a third; in dev none."""
    report = data_report(
        examples(train=texts("a", "a b c", "a b", label=[0, 1, 0]), dev=texts("x", "y", label=[0, 1])), [by_space(4)]
    )
    assert report.lengths == (
        Lengths("spaces", "train", 4, 4.0, 5, RowCount(1, (2,))),
        Lengths("spaces", "dev", 4, 3.0, 3, RowCount()),
    )
    assert warned(report, "max_length") == (
        "1 of 3 rows of train (33.3%; row 2) has more than 4 tokens of `spaces`, up to 5: raise `max_length`, as far as "
        "the model allows, or shorten the texts"
    )
    assert "tokens of `spaces` in train: 4.0 on average, 5 at most; 33.3% of the rows have more than 4" in list(
        lines(report)
    )


def test_lengths_of_pairs_and_of_windows() -> None:
    """Both texts count, and a special token between them; texts of a language model are not cut off."""
    pair = {"text_0": ["a b"], "text_1": ["c d e"]}
    found = data_report(examples((), train=pair, dev=pair), [by_space(7)], label_type=MASKED)
    assert [x.longest for x in found.lengths] == [8, 8]
    assert found.lengths[0].longer == RowCount(1, (1,))
    assert not any("tokens" in warning for warning in found.warnings)


def test_several_labels_for_each_row() -> None:
    """Counted by class; shares are of rows."""
    data = texts("a", "b", "c", label=[[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    report = data_report(examples(train=data, dev=texts("d", label=[[1.0, 1.0]])), label_type=CLASSES)
    assert report.label_type == "classes"
    assert report.splits["train"].labels == {"no": 1, "yes": 2}
    assert report.splits["train"].unlabelled == RowCount()
    assert next(lines(report)) == "train  3 rows; yes 2 (66.7%), no 1 (33.3%)"
    assert report.warnings == ()


def test_values() -> None:
    """Their range and mean; one that is no number is missing, and no part of them."""
    data = texts("a", "b", "c", "d", label=[1.0, 5.0, float("nan"), 3.0])
    report = data_report(examples((), train=data, dev=texts("e", label=[2.0])), label_type=VALUE)
    assert (report.label_type, report.splits["train"].labels) == ("value", None)
    assert report.splits["train"].numbers == (1.0, 3.0, 5.0)
    assert report.splits["train"].unlabelled == RowCount(1, (3,))
    assert next(lines(report)) == "train  4 rows; labels from 1 to 5, 3 on average"


def test_tags() -> None:
    """Words are counted by tag; a sentence is a text; without a tag for each word it has no labels."""
    train = {"words": [["New", "York"], ["Paris"], ["new", "york"]], "tags": [[1, 2], [0, 0], [1, 1]]}
    dev = {"words": [["Rome"], []], "tags": [[1], []]}
    report = data_report(examples(("O", "B", "I"), train=train, dev=dev), [by_space(3)], label_type=TAGS)
    split = report.splits["train"]
    assert (report.label_type, split.labels) == ("tags", {"O": 2, "B": 3, "I": 1})
    assert (split.unlabelled, split.repeated, split.contradicting) == (
        RowCount(1, (2,)),
        RowCount(1, (3,)),
        RowCount(1, (3,)),
    )
    assert report.splits["dev"].empty == RowCount(1, (2,))
    assert report.lengths[0].longer == RowCount(2, (1, 3))
    assert warned(report, "not one tag").startswith(
        "1 of 3 rows of train (33.3%; row 2) has not one tag for each word: "
    )
    assert "tags `O` and `I`" in warned(report, "dev has no example")


def test_spans() -> None:
    """A question without an answer is unlabelled; the same question and context are one text, whatever the answer."""
    answer, none = {"text": ["b"], "start": [2]}, {"text": [], "start": []}
    train = {"text_0": ["q", "q", "p"], "text_1": ["a b", "a b", "a b"], "answers": [answer, none, answer], "id": ["1", "2", "3"]}  # fmt: skip
    report = data_report(examples((), train=train, dev=train), label_type=SPANS)
    split = report.splits["train"]
    assert (report.label_type, split.labels) == ("spans", None)
    assert (split.unlabelled, split.repeated, split.contradicting) == (RowCount(1, (2,)), RowCount(1, (2,)), RowCount())
    assert report.overlaps[0].rows == RowCount(3, (1, 2, 3))
    assert next(warning for warning in report.warnings if "answer" in warning).startswith("1 of 3 rows of train")


def test_many_classes_are_not_listed() -> None:
    """The most and the least frequent one, or how many of each."""
    names = tuple("abcdefghij")
    uneven = texts(*map(str, range(11)), label=[*range(10), 3])
    even = texts(*(f"x{i}" for i in range(10)), label=list(range(10)))
    report = data_report(examples(names, train=uneven, dev=even))
    assert list(lines(report)) == [
        "train  11 rows; 10 classes, from 2 of d to 1 of j",
        "dev    10 rows; 10 classes, 1 of each",
    ]


def test_json() -> None:
    """All of it, in plain values that are written and read."""
    report = data_report(examples(train=texts("a", "a", label=[0, 1])), [by_space(4)])
    found = json.loads(json.dumps(report.as_json()))
    assert found["splits"]["train"]["repeated"] == {"count": 1, "first": [2]}
    assert found["lengths"][0]["encoding"] == "spaces"
    assert found["warnings"] == list(report.warnings)
    assert [line for line in lines(report) if line.startswith("warning: ")] == [
        f"warning: {w}" for w in report.warnings
    ]


def test_real_pairs(shared: Path) -> None:
    """SNLI's counts, against those of its files read plainly."""
    folder = shared.parent / "data" / "snli"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    source = Files(train="train_small.jsonl.gz", dev="dev.jsonl.gz", text=("text_a", "text_b"))
    found = open_examples(source, folder)
    report = data_report(found)
    plain = {
        name: [
            (a.lower().split(), b.lower().split()) for a, b in zip(split["text_0"][:], split["text_1"][:], strict=True)
        ]
        for name, split in found.splits.items()
    }
    distinct = {repr(pair) for pair in plain["train"]}
    train, dev = report.splits["train"], report.splits["dev"]
    assert (train.rows, dev.rows) == (6000, 2002)
    assert sum((train.labels or {}).values()) == 6000
    assert train.repeated.count == 6000 - len(distinct)
    assert report.overlaps[0].rows.count == sum(repr(pair) in distinct for pair in plain["dev"])
    assert report.warnings == ()


# ── quotes, batches, notes ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_quotes_leave_behind() -> None:
    """Of csv and tsv texts with tabs and line breaks, and texts in quotes, are named; of other data they are text."""
    made = examples(train=texts("a", "b\nc", '"d ""e"" f"', "e\tf", '"f"', label=[0, 1, 0, 1, 0]), dev=SOUND)
    report = data_report(made, delimited=True)
    assert (report.splits["train"].broken, report.splits["train"].quoted) == (RowCount(2, (2, 4)), RowCount(1, (3,)))
    assert warned(report, "a tab or a line break").startswith("2 of 5 rows of train (40.0%; rows 2, 4) have")
    assert "`quoting=true`" in warned(report, "in double quotes")
    assert not any("quot" in warning for warning in data_report(made).warnings)


def test_a_batch_of_more_than_all_rows() -> None:
    """Said of rows, not of text that is cut into blocks."""
    made = examples(train=SOUND, dev=SOUND)
    assert warned(data_report(made, batch=5), "a batch of 5").endswith(
        "more than the 4 rows of train: every step takes all of them"
    )
    assert not any("batch" in warning for warning in data_report(made, batch=4).warnings)
    assert not any("batch" in warning for warning in data_report(made, batch=5, label_type=NEXT).warnings)


def test_notes_are_told() -> None:
    """How the data was read, before the warnings."""
    made = Examples(examples(train=SOUND, dev=SOUND).splits, NAMES, "print", ("tags are IOB1",))
    assert "note: tags are IOB1" in list(lines(data_report(made)))
