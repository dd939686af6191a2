"""How well the text of an answer agrees with the right ones, by the rules of SQuAD, or of CMRC 2018 for Chinese."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

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
    longest, before = 0, [0] * (len(other) + 1)
    for piece in one:
        here = [0] + [before[i] + 1 if piece == other[i] else 0 for i in range(len(other))]
        longest, before = max(longest, *here), here
    return longest
