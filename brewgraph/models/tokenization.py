"""Tokenizers by name, before they are loaded, and the folders of names."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from brewgraph.diagnostics import SourceFault
from brewgraph.paths import is_file, locate
from brewgraph.recipe.settings.model_sources import Hf

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

VOCABULARY = 8000
"""The default size of a vocabulary that is trained on the data."""

_DESCRIBING = (".json", ".txt", ".model")
"""Suffixes of the files that describe a model, unlike its weights."""
_MODEL = ("config.json", "adapter_config.json")
_TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "vocab.txt", "vocab.json", "*.model")
"""Files in the folder of a model, and of a tokenizer."""


@dataclass(frozen=True)
class Tokens:
    """A tokenizer from a folder or hub name, or (`name` None) one that is trained on the data."""

    name: str | None
    revision: str | None = None
    vocab_size: int = VOCABULARY

    def load(self) -> PreTrainedTokenizerBase:
        assert self.name is not None
        return load_tokenizer(self.name, self.revision)

    @property
    def padding(self) -> int | None:
        """The id of the padding token, or else of the end-of-text token."""
        tokenizer = self.load()
        return cast(int | None, tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)

    @property
    def fingerprint(self) -> str:
        """Equal for tokenizers that split every text into the same tokens."""
        if self.name is None:
            return f"trained on the data: {self.vocab_size}"
        return tokenizer_fingerprint(self.load())

    @property
    def inputs(self) -> frozenset[str]:
        """The arguments that it gives a model; those of BERT's tokenizer if it is trained on the data."""
        more = {"token_type_ids"} if self.name is None else self.load().model_input_names
        return frozenset({"input_ids", "attention_mask", *more})


def local(name: str, folder: Path, field: str = "name") -> str:
    """The folder of that name beside the spec, or else the name itself, for the hub.

    `field` is the argument that names it, for faults of `locate`. SourceFault B310 for a file, B310 and B314 for a
    folder that contains those of models, such as a run's.
    """
    path = locate(name, folder, field)
    if field == "name" and path.is_file():
        help = "name the folder that save_pretrained wrote: config.json, weights and a tokenizer"
        raise SourceFault("B310", f"`{name}` is a file, and a model is a folder", help=help, field="name")
    kind, wanted = ("tokenizer", _TOKENIZER) if field == "tokenizer" else ("model", _MODEL)
    if path.is_dir() and not _holds(path, wanted) and (inside := _folders_with(path, wanted)):
        what = "is the folder of a run" if (path / "resolved.json").is_file() else f"holds no {kind}"
        help = f"name the folder of the {kind} in it: " + " or ".join(f"`{name.rstrip('/')}/{x}`" for x in inside[:3])
        raise SourceFault("B314" if field == "tokenizer" else "B310", f"`{name}` {what}", help=help, field=field)
    return _without_dots(path) if path.is_dir() else name


def _without_dots(folder: Path) -> str:
    """The path of a folder without `..`, as messages show it, unless links make that another folder."""
    plain = os.path.normpath(folder)
    return plain if os.path.isdir(plain) and os.path.samefile(plain, folder) else str(folder)


def _holds(folder: Path, files: Sequence[str]) -> bool:
    return any(any(folder.glob(file)) for file in files)


def _folders_with(folder: Path, files: Sequence[str]) -> list[str]:
    """The subfolders that hold such a file: those of a run's student or of its heads, or else of a checkpoint."""
    for pattern in ("student", "student/*", "alone/student", "checkpoints/best/student", "checkpoints/*/student", "*"):
        if folders := [path for path in sorted(folder.glob(pattern)) if _holds(path, files)]:
            return [str(path.relative_to(folder)) for path in folders]
    return []


def named_tokens(source: Hf, folder: Path) -> Tokens | None:
    """The tokenizer that a spec names beside a model, if any."""
    if source.tokenizer is None:
        return None
    # the revision belongs to the repository of `name` alone
    revision = source.revision if source.tokenizer == source.name else None
    return Tokens(local(source.tokenizer, folder, "tokenizer"), revision)


def own_tokens(source: Hf, folder: Path, inherited: Tokens | None) -> Tokens:
    """The tokenizer of a model: the one named beside it, or `inherited` from another model, or that of its checkpoint,
    or one trained on the data.
    """
    if tokens := named_tokens(source, folder) or inherited:
        return tokens
    if source.name is not None:
        return Tokens(local(source.name, folder), source.revision)
    return Tokens(None, vocab_size=source.vocab_size or VOCABULARY)


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer by folder or hub name. SourceFault B314."""
    return _load_tokenizer(name, revision, stamp_of(name))


def describing_files(folder: Path) -> Iterator[Path]:
    """The files of a local folder that describe a model and its tokenizer, by name. A pipe or a broken link is none."""
    return (file for file in sorted(folder.glob("*.*")) if file.suffix in _DESCRIBING and is_file(file))


def check_plain(name: str, code: str, field: str) -> None:
    """SourceFault with this code if, in a local folder, something else stands in the place of a file that describes a
    model: a folder, a link to nowhere, or a pipe, for which libraries would wait without end.
    """
    for path in sorted(Path(name).glob("*.*")) if Path(name).is_dir() else ():
        if path.suffix in _DESCRIBING and not is_file(path):
            message = f"`{path.name}` in the folder `{name}` is not a file"
            raise SourceFault(code, message, field=field, help="copy the folder again: save_pretrained writes it")


def stamp_of(name: str) -> object:
    """A value that changes with the files of a local folder, so that a long session reads them again."""
    files = describing_files(Path(name)) if Path(name).is_dir() else ()
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@lru_cache(maxsize=32)
def _load_tokenizer(name: str, revision: str | None, _stamp: object) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    check_plain(name, "B314", "tokenizer")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=False
        )
    except Exception as error:  # each tokenizer's class reads its files in its own way, and takes them for sound
        local_help, hub_help = "name one: tokenizer=…", "connect to the hub, or name a local folder: tokenizer=…"
        message = f"no tokenizer can be loaded from `{name}`: {first_line(error)}"
        help = local_help if Path(name).is_dir() else hub_help
        raise SourceFault("B314", message, field="tokenizer", help=help) from error
    if _is_made_up(tokenizer, Path(name)):
        message = f"`{name}` has no vocabulary of a tokenizer beside its weights"
        help = "save it there, too: `tokenizer.save_pretrained(…)`; or name one: tokenizer=…"
        raise SourceFault("B314", message, field="tokenizer", help=help)
    return tokenizer


def _is_made_up(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Whether a tokenizer has no files: transformers makes up an empty one, for which every word is unknown."""
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        return True
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    needs_none = not tokenizer.vocab_files_names
    return folder.is_dir() and not needs_none and not any((folder / file).is_file() for file in files)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of a tokenizer without truncation and padding, which belong to a batch."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(sorted(tokenizer.get_vocab().items()))
    clean = type(backend).from_str(backend.to_str())
    _forget_the_last_call(clean)
    return hashlib.sha256(clean.to_str().encode()).hexdigest()[:16]


def as_loaded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy whose files do not depend on the arguments of its last call, as those of a fast tokenizer do."""
    clean = copy.deepcopy(tokenizer)
    if (backend := getattr(clean, "backend_tokenizer", None)) is not None:
        _forget_the_last_call(backend)
    return clean


def giving(tokenizer: PreTrainedTokenizerBase, names: Iterable[str]) -> PreTrainedTokenizerBase:
    """A copy that gives these inputs of a model, also once it is saved and loaded."""
    made = copy.deepcopy(tokenizer)
    made.model_input_names = list(names)
    made.init_kwargs["model_input_names"] = list(names)  # what is saved
    return made


def _forget_the_last_call(backend: Tokenizer) -> None:
    """A call leaves its truncation and padding in the tokenizer."""
    backend.no_truncation()
    backend.no_padding()


def ids_behind(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids of the tokens that a tokenizer appends to every text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    pairs = reversed(list(zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)))
    return tuple(reversed([token for token, _ in takewhile(lambda pair: pair[1], pairs)]))


def marks_nothing(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer adds a CLS or BOS token, which can mean no answer."""
    return bool({tokenizer.cls_token_id, tokenizer.bos_token_id} & set(tokenizer("a")["input_ids"]))


def joins_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether split words (`is_split_into_words`) lose the blanks between them, as bytes do without a prefix space."""
    apart: list[int] = tokenizer(["a", "a"], is_split_into_words=True)["input_ids"]
    together: list[int] = tokenizer("a a")["input_ids"]
    return apart != together


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
