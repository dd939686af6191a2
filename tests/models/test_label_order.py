"""Whether a model's classes stand in the data's order: found from predictions, never from luck."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from brewgraph.models.label_order import LabelOrder, OrderCheck, check_span_order

NAMES = ("entailment", "neutral", "contradiction")


def check_label_order(said, true, names, model="the teacher", places=(), texts=None) -> LabelOrder:
    return OrderCheck(names, model, places).labels(said, true, texts)


def check_tag_order(said, true, words, names, model="the teacher") -> LabelOrder:
    return OrderCheck(names, model).tags(said, true, words)


def check_labels_order(said, true, names) -> LabelOrder:
    return OrderCheck(names).several(said, true)


def sample(count: int, rows: int, right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and predictions of which a share is right and the rest random."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, count, rows)
    guesses = generator.integers(0, count, rows)
    return np.where(generator.random(rows) < right, labels, guesses), labels


def test_a_good_teacher_is_as_it_should_be():
    """Nothing to say, and the accuracy is the plain one."""
    said, true = sample(3, 512, 0.8)
    found = check_label_order(said, true, NAMES)
    assert (found.verdict, found.order, found.message, found.help) == ("ok", (0, 1, 2), "", "")
    assert found.accuracy == found.best == pytest.approx((said == true).mean())
    assert found.rows == 512


@pytest.mark.parametrize("order", [p for p in itertools.permutations(range(3)) if p != (0, 1, 2)])
def test_every_permutation_is_found(order):
    """The model's class i means the data's class order[i]: said by names, with the labels to write."""
    said, true = sample(3, 512, 0.8)
    backwards = np.argsort(order)
    found = check_label_order(backwards[said], true, NAMES, "`bert`")
    assert (found.verdict, found.order) == ("permuted", order)
    assert found.best == pytest.approx((said == true).mean())
    assert found.accuracy == pytest.approx((backwards[said] == true).mean())
    moved = [f"its `{NAMES[i]}` is the data's `{NAMES[j]}`" for i, j in enumerate(order) if i != j]
    assert found.message.endswith(": " + ", ".join(moved))
    assert found.message.startswith(f"`bert` gets {found.accuracy:.0%} of 512 labelled examples right")
    assert found.help == "name its classes: labels=[" + ", ".join(f'"{NAMES[j]}"' for j in order) + "]"


def test_best_order_against_every_order():
    """The assignment is the best of all permutations, tried one by one."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        said, true = generator.integers(0, 4, 40), generator.integers(0, 4, 40)
        found = check_label_order(said, true, "abcd")
        best = max((np.asarray(p)[said] == true).mean() for p in itertools.permutations(range(4)))
        assert found.best == pytest.approx(best)


@pytest.mark.parametrize("count", [2, 3, 9, 100])
def test_a_random_teacher_is_chance(count):
    """Unrelated predictions: even among a hundred classes, where some order always looks far better."""
    verdicts = [check_label_order(*sample(count, 512, 0.0, seed), range(count)).verdict for seed in range(20)]
    assert "permuted" not in verdicts
    assert verdicts.count("chance") >= 17


def test_naming_one_class_always_is_chance():
    """Nine in ten right, and yet nothing was learned."""
    true = np.repeat([0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 20)
    found = check_label_order(np.zeros_like(true), true, ("O", "B"))
    assert (found.verdict, found.accuracy) == ("chance", 0.9)
    assert "90%" in found.message
    assert "labels=[…]" in found.help
    good = true.copy()
    good[:5] = 1
    assert check_label_order(good, true, ("O", "B")).verdict == "ok"


def test_less_than_twenty_points_is_no_permutation():
    """A weak teacher that mixes up two classes now and then stays as it is."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, 2, 512)
    said = np.where(generator.random(512) < 0.43, true, 1 - true)
    found = check_label_order(said, true, ("no", "yes"))
    assert 0.05 < found.best - found.accuracy < 0.2
    assert found.verdict == "chance"


def test_rows_that_tell_nothing():
    """Ignored labels, no rows, few rows, one class: no verdict."""
    said, true = sample(3, 200, 0.9)
    padded = np.concatenate([true, np.full(300, -100)])
    found = check_label_order(np.concatenate([said, np.zeros(300, dtype=int)]), padded, NAMES)
    assert found == check_label_order(said, true, NAMES)
    assert check_label_order([], [], NAMES).verdict == "ok"
    assert check_label_order([1, 0] * 31, [0, 1] * 31, ("a", "b")).verdict == "ok"
    assert check_label_order([1, 0] * 32, [0, 1] * 32, ("a", "b")).verdict == "permuted"
    assert check_label_order([1] * 100, [1] * 100, NAMES).verdict == "ok"


def test_classes_without_rows_stay_in_place():
    """A sample that shows two of four classes swaps these alone."""
    true = np.tile([0, 1], 50)
    assert check_label_order(1 - true, true, "abcd").order == (1, 0, 2, 3)


# ── tags, several labels, answers ────────────────────────────────────────────────────────────────────────────────────

TAGS = ("O", "B-X", "I-X", "B-Y", "I-Y")


def tagged(rows: int, right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tags nine in ten of which are `O`, predictions of which a share is right, and the words, many of each tag."""
    generator = np.random.default_rng(seed)
    true = generator.choice(5, rows, p=[0.9, 0.04, 0.03, 0.02, 0.01])
    said = np.where(generator.random(rows) < right, true, generator.integers(0, 5, rows))
    return said, true, true * 1000 + generator.integers(0, 300, rows)


@pytest.mark.parametrize("order", [(0, 3, 4, 1, 2), (1, 2, 3, 4, 0), (4, 3, 2, 1, 0)])
def test_rare_tags_out_of_order_are_found(order):
    """Though nine words in ten are right where `O` stays in its place; the remedy names every class of the head."""
    said, true, words = tagged(3000, 0.8)
    assert check_tag_order(said, true, words, TAGS).verdict == "ok"
    found = check_tag_order(np.argsort(order)[said], true, words, TAGS, "`bert`")
    assert (found.verdict, found.order) == ("permuted", order)
    assert found.help == "name its classes: labels=[" + ", ".join(f'"{TAGS[j]}"' for j in order) + "]"
    recall = [(said[true == n] == n).mean() for n in range(5)]
    assert found.best == pytest.approx(np.mean(recall))
    padded = np.concatenate([true, np.full(99, -100)])
    again = check_tag_order(
        *(np.concatenate([x, np.zeros(99, int)]) for x in (said,)), padded, np.resize(words, 3099), TAGS
    )
    assert (again.verdict, again.rows) == ("ok", 3000)


def test_a_head_that_was_put_in_order_before_is_named_in_its_own():
    """Of a model whose class i comes from place `places[i]` of its head, the remedy has the places' order."""
    said, true = sample(3, 512, 0.9)
    found = check_label_order((said + 1) % 3, true, NAMES, places=(2, 0, 1))
    own = dict(zip((2, 0, 1), [NAMES[j] for j in found.order], strict=True))
    assert found.help.endswith("labels=[" + ", ".join(f'"{own[i]}"' for i in range(3)) + "]")


@pytest.mark.parametrize("seed", range(20))
def test_taggers_that_say_one_thing_of_a_word_are_no_order(seed):
    """Every word has a tag that was drawn for it: few words of a tag may look like an order of their own."""
    generator = np.random.default_rng(seed)
    kinds = generator.integers(1, 40)
    true = generator.choice(5, 1500, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    words = true * 100 + generator.integers(0, kinds, 1500)
    said = generator.integers(0, 5, 500)[words]
    assert check_tag_order(said, true, words, TAGS).verdict != "permuted"
    assert check_tag_order(np.zeros_like(true), true, words, TAGS).verdict == "chance"


def test_several_labels_out_of_order():
    """Probabilities that tell of the labels, in the order of others; unrelated ones are chance, few rows say nothing."""
    generator = np.random.default_rng(0)
    true = (generator.random((300, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(float)
    said = np.clip(true * 0.7 + generator.random((300, 4)) * 0.3, 0, 1)
    names = ("joy", "fear", "anger", "trust")
    found = check_labels_order(said, true, names)
    corr = np.mean([np.corrcoef(said[:, n], true[:, n])[0, 1] for n in range(4)])
    assert (found.verdict, found.best) == ("ok", pytest.approx(corr))
    moved = check_labels_order(said[:, [2, 0, 3, 1]], true, names)
    assert (moved.verdict, moved.order, moved.best) == ("permuted", (2, 0, 3, 1), pytest.approx(corr))
    assert moved.help == 'name its classes: labels=["anger", "joy", "trust", "fear"]'
    assert check_labels_order(generator.random((300, 4)), true, names).verdict == "chance"
    assert check_labels_order(said[:60, ::-1], true[:60], names).verdict == "ok"
    assert check_labels_order(said * 0, true, names).verdict == "chance"


def test_starts_and_ends_that_are_swapped():
    """Only answers of several tokens tell, and enough of them; a weak reader is no swapped one."""
    generator = np.random.default_rng(0)
    true = np.sort(generator.integers(0, 50, (200, 2)), 1) + np.array([0, 1])
    assert check_span_order(true, true).verdict == "ok"
    found = check_span_order(true[:, ::-1], true, "`qa`")
    assert (found.verdict, found.order, found.rows) == ("permuted", (1, 0), 200)
    assert (
        found.message
        == "`qa` finds 0% of the starts and ends of 200 answers, and 100% with its starts and ends swapped"
    )
    single = np.repeat(true[:, :1], 2, 1)
    assert check_span_order(single, single).verdict == "ok"
    assert check_span_order(true[:60, ::-1], true[:60]).verdict == "ok"
    lost = np.full_like(true, -100)
    assert check_span_order(true[:, ::-1], lost).rows == 0
    assert check_span_order(generator.integers(0, 50, (200, 2)), true).verdict == "ok"


# ── a few of many classes ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [9, 20, 60])
def test_two_of_many_classes_that_changed_places(count):
    """The whole gains next to nothing; the two are found, by name, and the remedy leaves the others where they are."""
    said, true = sample(count, 60 * count, 0.6)
    names = [f"c{n}" for n in range(count)]
    order = np.arange(count)
    order[[1, 3]] = 3, 1
    found = check_label_order(order[said], true, names)
    assert (found.verdict, found.order) == ("permuted", tuple(order))
    own = np.isin(true, [1, 3])
    assert found.best == pytest.approx((said == true)[own].mean())
    assert found.accuracy == pytest.approx((order[said] == true)[own].mean())
    assert "examples of `c1` and `c3` right" in found.message
    assert found.message.endswith("in another order: its `c1` is the data's `c3`, its `c3` is the data's `c1`")
    assert check_label_order(said, true, names).verdict == "ok"


def test_two_rare_tags_that_changed_places():
    """Two of nine tags, one word in fifty each; few words of them are `unsure`, and texts that are one count once."""
    generator = np.random.default_rng(1)
    names = ("O", *(f"{x}-{y}" for y in "WXYZ" for x in "BI"))
    true = generator.choice(9, 6000, p=[0.84] + [0.02] * 8)
    said = np.where(generator.random(6000) < 0.7, true, 0)
    words = true * 1000 + generator.integers(0, 500, 6000)
    order = np.array([0, 1, 2, 5, 4, 3, 6, 7, 8])
    found = check_tag_order(order[said], true, words, names)
    assert (found.verdict, found.order) == ("permuted", tuple(order))
    assert "`B-X` and `B-Y`" in found.message
    few = slice(0, 400)
    found = check_tag_order(order[said[few]], true[few], words[few], names)
    assert (found.verdict, found.unsure) == ("ok", (3, 5))
    assert check_tag_order(order[said], true, true, names).verdict == "ok"
    assert check_tag_order(said, true, words, names).unsure == ()


def test_a_few_of_several_labels_that_changed_places():
    """Weakly told labels of six classes, two of them moved."""
    generator = np.random.default_rng(2)
    true = (generator.random((500, 6)) < 0.2).astype(float)
    said = 1 / (1 + np.exp(-(2 * true + generator.normal(size=(500, 6)))))
    names = "uvwxyz"
    assert 0.5 < check_labels_order(said, true, names).accuracy < 0.7
    found = check_labels_order(said[:, [0, 4, 2, 3, 1, 5]], true, names)
    assert (found.verdict, found.order) == ("permuted", (0, 4, 2, 3, 1, 5))
    assert found.best == pytest.approx(np.mean([np.corrcoef(said[:, n], true[:, n])[0, 1] for n in (1, 4)]))


@pytest.mark.parametrize("seed", range(20))
def test_confused_and_ignorant_models_are_no_order(seed):
    """One that takes all of a class for another, one whose outputs go by a few words, one that names a few classes."""
    generator = np.random.default_rng(seed)
    names = [f"c{n}" for n in range(6)]
    true = generator.integers(0, 6, 600)
    merged = np.where(generator.random(600) < 0.9, np.where(true == 2, 4, true), generator.integers(0, 6, 600))
    assert check_label_order(merged, true, names).verdict == "ok"
    word = true * 2 + generator.integers(0, 2, 600)
    by_word = generator.integers(0, 6, 12)[word]
    assert check_label_order(by_word, true, names, texts=word).verdict != "permuted"
    several = np.eye(6)[true]
    features = several @ generator.normal(size=(6, 2)) + 0.3 * generator.normal(size=(600, 2))
    said = 1 / (1 + np.exp(-features @ generator.normal(size=(2, 6))))
    assert check_labels_order(said, several, names).verdict != "permuted"
    few = generator.integers(0, 2, 600)
    assert check_label_order(few, true, names).verdict != "permuted"
