"""Metrics by label type.

Logits are turned into classes, spans or sums on the device; they are neither kept nor sent between ranks.

Shapes: B examples, L tokens, C classes, V vocabulary.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from brewgraph.recipe.label_types import CLASS, CLASSES, MASKED, NEXT, SPANS, TAGS, VALUE, LabelType
from brewgraph.recipe.tag_schemes import OUTSIDE, Scheme, find_scheme


class Metric(Protocol):
    """The interface of every metric; see the module."""

    @staticmethod
    def reduce(logits: Any, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The arguments of `update`, from logits and the batch with their labels, on the device."""

    def update(self, *reduced: Any, **none: Any) -> None:
        """Add a batch."""

    def state(self) -> tuple[Tensor, ...]:
        """Everything added so far, on the CPU."""

    def merge(self, *state: Any, **none: Any) -> None:
        """Add the state of another rank."""

    def compute(self) -> dict[str, float]:
        """The values by name, those of `metrics` of the label type."""


def make_metric(
    label_type: LabelType, classes: Sequence[str], examples: Any = None, null_threshold: float | None = None
) -> Metric:
    """The metric of a label type. `examples` are the rows that hold tags and answers; `null_threshold` is None if every
    question has an answer.
    """
    return METRICS[label_type](Scored(classes, examples, null_threshold))


@dataclass(frozen=True)
class Scored:
    """What a metric may be made of; see `make_metric`."""

    classes: Sequence[str]
    examples: Any
    null_threshold: float | None


METRICS: dict[str, Callable[[Scored], Metric]] = {
    CLASS: lambda of: ClassMetrics(len(of.classes)),
    CLASSES: lambda of: LabelsMetrics(len(of.classes)),
    VALUE: lambda of: ValueMetrics(),
    TAGS: lambda of: TagMetrics(of.classes, of.examples),
    SPANS: lambda of: SpanMetrics(of.examples, of.null_threshold),
    NEXT: lambda of: TokenMetrics(),
    MASKED: lambda of: TokenMetrics(),
}
"""What makes the metric of each label type, by its name. The names of its values, and of which of them a lower one is
better, are in `recipe/label_types.py`.
"""


IGNORED = -100
"""The label of positions that do not count."""


def ratio(over: Tensor, under: Tensor) -> Tensor:
    """A quotient in double precision, 0 for a divisor of 0."""
    over, under = over.double(), under.double()
    return torch.where(under > 0, over / under.clamp(min=1e-300), torch.zeros_like(over))


class SummedMetric:
    """A metric whose state are sums, which those of other ranks are added to."""

    def __init__(self, *sums: Tensor):
        self.sums = sums

    def add(self, *sums: Tensor) -> None:
        self.sums = tuple(old + new for old, new in zip(self.sums, sums, strict=True))

    merge = add

    def state(self) -> tuple[Tensor, ...]:
        return self.sums


class ClassMetrics(SummedMetric):
    """Accuracy, F1 and Matthews' correlation of one label per example.

    `macro_f1` is the mean over the classes that occur, as labels or as guesses; `f1`, of two classes alone, is that of
    class 1. `matthews` is the generalisation to several classes (Gorodkin 2004, "Comparing two K-category assignments
    by a K-category correlation coefficient", eq. 8), 0 where labels or guesses are all of one class.

    >>> metric = ClassMetrics(2)
    >>> metric.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    >>> metric.compute()["accuracy"]
    0.75
    """

    def __init__(self, classes: int):
        # per class: guessed rightly, guessed, labelled: enough for every metric here, without a C x C matrix
        super().__init__(torch.zeros(3, classes, dtype=torch.int64))

    @staticmethod
    def reduce(logits_BC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The most likely class of each example, and its label."""
        return logits_BC.argmax(-1), batch["labels"]

    def update(self, guess_B: Tensor, labels_B: Tensor) -> None:
        counted = labels_B != IGNORED
        guess, labels = guess_B[counted], labels_B[counted]
        size = self.sums[0].shape[1]
        members = (labels[guess == labels], guess, labels)
        self.add(torch.stack([torch.bincount(x.cpu(), minlength=size) for x in members]))

    def compute(self) -> dict[str, float]:
        right, guessed, labelled = self.sums[0].double()
        total, correct = labelled.sum(), right.sum()
        f1 = ratio(2 * right, guessed + labelled)
        occurs = guessed + labelled > 0
        values = {
            "accuracy": float(ratio(correct, total)),
            "macro_f1": float(ratio(f1.sum(), occurs.sum())),
        }
        if len(f1) == 2:
            values["f1"] = float(f1[1])
        covariance = correct * total - guessed @ labelled
        spread = (total**2 - guessed @ guessed) * (total**2 - labelled @ labelled)
        return {**values, "matthews": float(ratio(covariance, spread.sqrt()))}


class LabelsMetrics(SummedMetric):
    """F1 and exact matches of any number of labels per example; a label is guessed at a probability above 0.5.

    `macro_f1` is the mean over all classes, 0 for one that neither occurs nor is guessed; `exact_match` is the share of
    examples of which every label is right.
    """

    def __init__(self, classes: int):
        super().__init__(torch.zeros(3, classes, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))

    @staticmethod
    def reduce(logits_BC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Which labels each example is given, and which it has: a logit above 0 is a probability above a half."""
        return logits_BC > 0, batch["labels"] > 0.5

    def update(self, guess_BC: Tensor, labels_BC: Tensor) -> None:
        guess, labels = guess_BC.bool().cpu(), labels_BC.bool().cpu()
        counts_3C = torch.stack([(guess & labels).sum(0), guess.sum(0), labels.sum(0)])
        self.add(counts_3C, torch.tensor([int((guess == labels).all(-1).sum()), len(labels)]))

    def compute(self) -> dict[str, float]:
        right, guessed, labelled = self.sums[0].double()
        f1 = ratio(2 * right, guessed + labelled)
        return {
            "micro_f1": float(ratio(2 * right.sum(), guessed.sum() + labelled.sum())),
            "macro_f1": float(f1.mean()) if len(f1) else 0.0,
            "exact_match": float(ratio(*self.sums[1])),
        }


class TokenMetrics(SummedMetric):
    """Perplexity and accuracy of a language model over the tokens that have a label.

    `perplexity` is exp of the mean negative log-likelihood over all of them, not a mean over batches or texts; infinite
    if it exceeds the range of a float.
    """

    def __init__(self) -> None:
        super().__init__(torch.zeros(3, dtype=torch.float64))

    @staticmethod
    def reduce(logits_BLV: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Over the labelled tokens: the sum of their negative log-likelihoods in nats, how many are guessed, how many
        there are. Labels stand at the logits that they belong to."""
        labels_BL = batch["labels"]
        counted = labels_BL != IGNORED
        logits, labels = logits_BLV[counted], labels_BL[counted]  # first, for with masks few tokens have a label
        loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
        return loss, (logits.argmax(-1) == labels).sum(), counted.sum()

    def update(self, loss: Tensor, right: Tensor, tokens: Tensor) -> None:
        self.add(torch.stack([x.detach().cpu().double() for x in (loss, right, tokens)]))

    def compute(self) -> dict[str, float]:
        loss, right, tokens = self.sums[0].tolist()
        mean = loss / tokens if tokens else math.nan
        try:
            perplexity = math.exp(mean)
        except OverflowError:
            perplexity = math.inf
        return {"perplexity": perplexity, "token_accuracy": right / tokens if tokens else math.nan}


class ValueMetrics:
    """Pearson's and Spearman's correlation, and the mean squared error.

    Correlations of constant values, as of a single example, are NaN, as in scipy.

    >>> metric = ValueMetrics()
    >>> metric.update(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
    >>> round(metric.compute()["spearman"], 6)
    1.0
    """

    def __init__(self) -> None:
        self.pairs: list[Tensor] = []

    @staticmethod
    def reduce(logits: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """The number of each example (logits are (B, 1), or (B,)), and its label."""
        return logits.reshape(len(logits)), batch["labels"]

    def update(self, guess_B: Tensor, labels_B: Tensor) -> None:
        self.pairs.append(torch.stack([guess_B.detach().cpu().double(), labels_B.cpu().double()]))

    def state(self) -> tuple[Tensor, ...]:
        return (self.pairs_2N(),)

    def merge(self, pairs_2N: Tensor) -> None:
        self.pairs.append(pairs_2N)

    def pairs_2N(self) -> Tensor:
        """Guesses and labels."""
        return torch.cat(self.pairs, dim=1) if self.pairs else torch.zeros(2, 0, dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        guess, labels = self.pairs_2N()
        error = float(((guess - labels) ** 2).mean())  # NaN without pairs
        return {
            "spearman": correlation(ranks(guess), ranks(labels)),
            "pearson": correlation(guess, labels),
            "mse": error,
        }


def correlation(one_N: Tensor, other_N: Tensor) -> float:
    """Pearson's correlation; NaN if one of the two is constant."""
    one, other = one_N - one_N.mean(), other_N - other_N.mean()
    spread = one.norm() * other.norm()
    # rounding leaves a constant column with a small spread
    small = 1e-12 * (one_N.norm() * other_N.norm())
    return float((one @ other / spread).clamp(-1, 1)) if len(one) > 1 and spread > small else math.nan


def ranks(values_N: Tensor) -> Tensor:
    """The rank of each value from 1; equal values share the mean of their ranks."""
    _, inverse, counts = values_N.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean: Tensor = (last - (counts - 1) / 2)[inverse]
    return mean


Entity = tuple[str, int, int]
"""Type, first word, last word."""


def entities(tags: Sequence[str], scheme: Scheme, *, strict: bool = False) -> set[Entity]:
    """The entities that a sentence's tags mark.

    In IOB2 by the rules of CoNLL's scorer (Tjong Kim Sang and Buchholz 2000, "Introduction to the CoNLL-2000 Shared
    Task: Chunking"), which seqeval follows: an entity begins at `B-x`, and also at an `I-x` that goes on with none of
    type x; it ends before the first tag that does not go on with it. In the `strict` reading it begins at `B-x` alone.

    Schemes that mark the last word (IOBES, BILOU, BMES) have the strict reading alone, as seqeval's `mode="strict"`: an
    entity is one word marked as such, or a beginning, insides and an end of one type in a row.

    >>> iob2 = find_scheme(["B-PER", "I-PER"])
    >>> sorted(entities(["I-PER", "I-PER", "O", "B-LOC"], iob2))
    [('LOC', 3, 3), ('PER', 0, 1)]
    >>> sorted(entities(["I-PER", "I-PER", "O", "B-LOC"], iob2, strict=True))
    [('LOC', 3, 3)]
    >>> sorted(entities(["B-PER", "I-PER", "O", "U-PER"], find_scheme(["B-PER", "U-PER"])))
    [('PER', 3, 3)]
    """
    marked: set[Entity] = set()
    kind, begin = "", -1  # the open entity; `begin` is -1 without one
    for position, tag in enumerate([*tags, OUTSIDE]):
        mark, own = scheme.split(tag) or ("", "")
        if mark in ("I", "E") and begin >= 0 and own == kind:
            if mark == "E":
                marked.add((kind, begin, position))
                begin = -1
            continue
        if begin >= 0 and not scheme.closes:
            marked.add((kind, begin, position - 1))
        if mark == "S":
            marked.add((own, position, position))
        begins = mark == "B" or (mark == "I" and not (strict or scheme.closes))
        kind, begin = (own, position) if begins else ("", -1)
    return marked


class TagMetrics(SummedMetric):
    """Precision, recall and F1 of entities: one is right where its type, its first and its last word are.

    `strict_f1` reads tags in IOB2 strictly (see `entities`); `token_accuracy` is the share of words whose tag is right,
    `O` among them. Tags that mark no entities (parts of speech) have a `token_accuracy` and nothing else.

    `examples` are the rows of the split, with `index` and `tags`: every word of a sentence counts, whichever of its
    windows tags it. A word that a tokenizer leaves without a token is taken for `O`.
    """

    def __init__(self, classes: Sequence[str], examples: Any):
        self.classes = tuple(classes)
        self.scheme = find_scheme(classes)
        self.outside = self.classes.index(OUTSIDE) if OUTSIDE in self.classes else -1
        self.examples = examples
        self.labels: dict[int, list[int]] | None = None
        self.open: dict[int, dict[int, int]] = {}  # of sentences that are not tagged to the end, the words that are
        super().__init__(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))

    @staticmethod
    def reduce(logits_BLC: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Of each word that is tagged: the sentence's index, the word's number in it, the most likely tag; (N) each."""
        guess_BL, places_BW = logits_BLC.argmax(-1), batch["words"]
        row_N, word_N = (places_BW >= 0).nonzero(as_tuple=True)
        return batch["index"][row_N], batch["first"][row_N] + word_N, guess_BL[row_N, places_BW[row_N, word_N]]

    def update(self, index_N: Tensor, word_N: Tensor, guess_N: Tensor) -> None:
        if self.labels is None:
            self.labels = dict(zip(self.examples["index"], self.examples["tags"], strict=True))
        for index, word, guess in zip(index_N.tolist(), word_N.tolist(), guess_N.tolist(), strict=True):
            self.open.setdefault(index, {})[word] = guess
        for index in dict.fromkeys(index_N.tolist()):
            if len(self.open[index]) == len(self.labels[index]):
                self.add(*self._count(index, self.open.pop(index)))

    def _count(self, index: int, guesses: Mapping[int, int]) -> tuple[Tensor, Tensor]:
        """Entities, in both readings, and words of a sentence: right, guessed, there; right, there."""
        assert self.labels is not None
        labels = self.labels[index]
        guess = [guesses.get(word, self.outside) for word in range(len(labels))]
        words_2 = torch.tensor([sum(a == b for a, b in zip(guess, labels, strict=True)), len(labels)])
        entities_23 = torch.zeros(2, 3, dtype=torch.int64)
        if self.scheme is not None:
            names = [[self.classes[n] if n >= 0 else OUTSIDE for n in row] for row in (guess, labels)]
            for row, strict in enumerate((False, True)):
                guessed, there = (entities(tags, self.scheme, strict=strict) for tags in names)
                entities_23[row] = torch.tensor([len(guessed & there), len(guessed), len(there)])
        return entities_23, words_2

    def state(self) -> tuple[Tensor, ...]:
        rest = [(index, word, guess) for index, own in self.open.items() for word, guess in own.items()]
        return *self.sums, torch.tensor(rest, dtype=torch.int64).reshape(-1, 3).T

    def merge(self, *state: Tensor) -> None:
        *sums, open_3N = state
        self.add(*sums)
        self.update(*open_3N)

    def compute(self) -> dict[str, float]:
        entities_23, words_2 = self.sums
        for index, own in self.open.items():
            counted = self._count(index, own)
            entities_23, words_2 = entities_23 + counted[0], words_2 + counted[1]
        right, words = words_2.tolist()
        accuracy = {"token_accuracy": right / max(1, words)}
        if self.scheme is None:
            return accuracy
        (precision, recall, f1), (_, _, strict_f1) = (_scores(counts) for counts in entities_23.tolist())
        return {"f1": f1, "precision": precision, "recall": recall, "strict_f1": strict_f1, **accuracy}


def _scores(counts: Iterable[int]) -> tuple[float, float, float]:
    """Precision, recall and F1; each 0 for a divisor of 0."""
    right, guessed, there = counts
    return right / max(1, guessed), right / max(1, there), 2 * right / max(1, guessed + there)


# ── agreement of an answer with the right ones ────────────────────────────────────────────────────────────────────────


Agreement = tuple[float, float]
"""Exact match, 0 or 1, and F1."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CHINESE = re.compile("[\u4e00-\u9fa5]")
_PIECES = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""What CMRC's scorer takes for punctuation."""


def is_chinese(texts: Iterable[str]) -> bool:
    """Whether more than half of the characters, blanks left out, are Chinese."""
    characters = [c for text in texts for c in text if not c.isspace()]
    return 2 * sum(bool(_CHINESE.match(c)) for c in characters) > len(characters)


def agreement(answer: str, right: Sequence[str], *, chinese: bool = False) -> Agreement:
    """The best agreement of an answer with any of the right ones; without right ones, "no answer" is right."""
    score: Callable[[str, str], Agreement] = cmrc if chinese else squad
    agreements = [score(answer, other) for other in right] or [score(answer, "")]
    return max(exact for exact, _ in agreements), max(f1 for _, f1 in agreements)


def squad(answer: str, right: str) -> Agreement:
    """The rules of the SQuAD v1.1 scorer (Rajpurkar et al. 2016, section 6.1): case, punctuation, articles and blanks
    do not count; F1 is that of the words as a bag. Two texts of which one has no words agree only where both have none.

    >>> squad("the Eiffel Tower!", "Eiffel tower")
    (1.0, 1.0)
    >>> squad("tower in Paris", "Paris")
    (0.0, 0.5)
    """
    ours, theirs = _squad_words(answer), _squad_words(right)
    exact = float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return exact, 2 * common / (len(ours) + len(theirs)) if common else float(not ours and not theirs)


def is_blank(answer: str) -> bool:
    """Whether SQuAD's rules leave nothing of an answer, as of `the`: the scorer of version 2.0 passes over such."""
    return not _squad_words(answer)


def _squad_words(text: str) -> list[str]:
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return _ARTICLES.sub(" ", bare).split()


def cmrc(answer: str, right: str) -> Agreement:
    """The rules of the CMRC 2018 scorer (Cui et al. 2019, "A Span-Extraction Dataset for Chinese Machine Reading
    Comprehension", section 4): a text is a row of single Chinese characters and whole other words, without case and
    punctuation; precision and recall are the length of the longest run of them that the two texts share, over their
    lengths. The scorer cuts other words by NLTK; here they are letters and digits in a row, which differs where words
    are contracted.

    >>> cmrc("北京", "在北京。")
    (0.0, 0.8)
    """
    exact = float(_without_marks(answer) == _without_marks(right))
    ours, theirs = _pieces(answer), _pieces(right)
    shared = longest_shared_run(ours, theirs)
    return exact, 2 * shared / (len(ours) + len(theirs)) if shared else float(not ours and not theirs)


def _without_marks(text: str) -> str:
    return "".join(c for c in text.lower().strip() if c not in _MARKS)


def _pieces(text: str) -> list[str]:
    spaced = _CHINESE.sub(lambda match: f" {match[0]} ", _without_marks(text))
    return _PIECES.findall(spaced)


def longest_shared_run(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest stretch without gaps that two rows share."""
    return SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size


LONGEST = 30
"""The maximum number of tokens of an answer, as in BERT's evaluation of SQuAD."""


@dataclass(frozen=True)
class Answer:
    """A span of the context by character offsets, `end` excluded. `score` is the sum of its two logits, `null_score`
    that of the token for "no answer", the lowest of all windows.
    """

    score: float
    begin: int
    end: int
    null_score: float

    def is_null(self, threshold: float | None) -> bool:
        """Whether "no answer" scores higher by more than `threshold`; never without a threshold."""
        return threshold is not None and self.null_score - self.score > threshold

    def text(self, context: str, threshold: float | None) -> str:
        """The text of the answer, empty for "no answer"."""
        return "" if self.is_null(threshold) else context[self.begin : self.end]


def best_spans(start_BL: Tensor, end_BL: Tensor, offsets_BL2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best span of each window: (B,) scores, first and last characters (the last one excluded).

    A span starts no later than it ends, has at most `LONGEST` tokens, and both ends lie in the context, where offsets
    are not negative. A window that holds nothing of the context scores minus infinity, from 0 to 0.
    """
    inside_BL = offsets_BL2[..., 0] >= 0
    start_BL = start_BL.float().masked_fill(~inside_BL, -torch.inf)
    end_BL = end_BL.float().masked_fill(~inside_BL, -torch.inf)
    # the end comes 0 to LONGEST - 1 tokens (the axis K) after the start
    ends_BLK = torch.nn.functional.pad(end_BL, (0, LONGEST - 1), value=-torch.inf).unfold(1, LONGEST, 1)
    score_B, where_B = (start_BL[:, :, None] + ends_BLK).flatten(1).max(-1)
    first_B, more_B = where_B // LONGEST, where_B % LONGEST
    row_B = torch.arange(len(start_BL), device=start_BL.device)
    found_B = score_B > -torch.inf
    last_B = (first_B + more_B).clamp(max=start_BL.shape[1] - 1)
    begin_B = torch.where(found_B, offsets_BL2[row_B, first_B, 0], 0)
    finish_B = torch.where(found_B, offsets_BL2[row_B, last_B, 1], 0)
    return score_B, begin_B, finish_B


class BestAnswers:
    """The best answer of each example, by its index, over all its windows and all ranks.

    As in `run_qa.py` of transformers' examples, a question has no answer only if every window says so: the lowest score
    of "no answer" counts.
    """

    def __init__(self) -> None:
        self.best: dict[int, Answer] = {}

    @staticmethod
    def reduce(logits: tuple[Tensor, Tensor], batch: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Index, score, first and last character of each window's best span, and the score of no answer."""
        start_BL, end_BL = logits
        row_B = torch.arange(len(start_BL), device=start_BL.device)
        null_B = start_BL[row_B, batch["null"]].float() + end_BL[row_B, batch["null"]].float()
        return batch["index"], *best_spans(start_BL, end_BL, batch["offsets"]), null_B

    def update(self, index_B: Tensor, score_B: Tensor, begin_B: Tensor, end_B: Tensor, null_B: Tensor) -> None:
        rows_B5 = torch.stack([x.double() for x in (index_B, score_B, begin_B, end_B, null_B)], -1)
        for index, score, begin, end, null in rows_B5.tolist():
            new = Answer(score, int(begin), int(end), null)
            old = self.best.get(int(index), new)
            # of equal ones the first, so that the number of ranks does not matter
            best = max(new, old, key=lambda answer: (answer.score, -answer.begin, -answer.end))
            self.best[int(index)] = replace(best, null_score=min(new.null_score, old.null_score))

    def state(self) -> tuple[Tensor, ...]:
        rows = [(index, a.score, a.begin, a.end, a.null_score) for index, a in self.best.items()]
        return tuple(torch.tensor(rows, dtype=torch.float64).reshape(-1, 5).T)

    merge = update


class SpanMetrics(BestAnswers):
    """Exact match and F1 of answers, the mean over examples.

    `examples` are the rows of the split, with `index`, `text_1` (the context) and `answers` ({"text": […], …}). Chinese
    answers (more than half of their characters) are scored as in CMRC 2018, all others as in SQuAD v1.1.

    With a `null_threshold` questions may have no answer, and the rules are those of SQuAD 2.0 (Rajpurkar et al. 2018,
    `evaluate-v2.0.py`): no answer is right where there is none. Beside the mean over all examples there are those over
    the questions that have an answer, and over those that have none, where there are such.
    """

    def __init__(self, examples: Any, null_threshold: float | None = None):
        super().__init__()
        self.examples, self.null_threshold = examples, null_threshold

    def compute(self) -> dict[str, float]:
        asked = [row for row in self.examples if row["index"] in self.best]
        chinese = is_chinese(text for row in asked for text in row["answers"]["text"])
        by_kind: dict[bool, list[Agreement]] = {True: [], False: []}
        for row in asked:
            text = self.best[row["index"]].text(row["text_1"], self.null_threshold)
            right = row["answers"]["text"]
            if self.null_threshold is not None and not chinese:
                right = [answer for answer in right if not is_blank(answer)]
            by_kind[bool(row["answers"]["text"])].append(agreement(text, right, chinese=chinese))
        values = _means(by_kind[True] + by_kind[False])
        if self.null_threshold is not None:
            names = {True: "has_answer", False: "no_answer"}
            for kind, members in by_kind.items():
                means = _means(members) if members else {}
                values |= {f"{names[kind]}_{name.split('_')[0]}": x for name, x in means.items()}
        return values


def _means(agreements: Sequence[Agreement]) -> dict[str, float]:
    """The means of exact matches and F1; 0 without any."""
    count = max(1, len(agreements))
    exact, f1 = (sum(values) / count for values in zip(*agreements, strict=True)) if agreements else (0.0, 0.0)
    return {"exact_match": exact, "f1": f1}
