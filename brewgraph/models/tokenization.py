"""How text becomes tokens, known by name before a tokenizer is loaded; the folders that names stand for."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewgraph.diagnostics import SourceFault
from brewgraph.paths import locate
from brewgraph.recipe.settings.sources import Hf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = 8000
"""Size of a vocabulary that is trained on the data where the spec does not say."""

_DESCRIBING = (".json", ".txt", ".model")
"""How the files of a model end that say what it is, unlike its weights."""
_MODEL = ("config.json", "adapter_config.json")
_TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "vocab.txt", "vocab.json", "*.model")
"""What lies in the folder of a model, and of a tokenizer."""


@dataclass(frozen=True)
class Tokens:
    """How text becomes tokens: from a folder or hub name, or (`name` None) a vocabulary trained on the data."""

    name: str | None
    revision: str | None = None
    vocab_size: int = VOCABULARY

    def load(self) -> PreTrainedTokenizerBase:
        assert self.name is not None
        return load_tokenizer(self.name, self.revision)

    @property
    def padding(self) -> int | None:
        """The id of the token that batches are padded with: that for the end of a text where there is none for it."""
        tokenizer = self.load()
        found: int | None = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return found

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenizers that cut every text into the same tokens."""
        if self.name is None:
            return f"trained on the data: {self.vocab_size}"
        return tokenizer_fingerprint(self.load())

    @property
    def inputs(self) -> frozenset[str]:
        """The arguments that its tokenizer gives a model; one that is trained on the data gives what BERT's does."""
        always = {"input_ids", "attention_mask"}
        return frozenset(
            {*always, "token_type_ids"} if self.name is None else {*always, *self.load().model_input_names}
        )


def local(name: str, folder: Path, field: str = "name") -> str:
    """A folder beside the spec where there is one of that name, else the name itself, for the hub. `field` is the
    argument that names it, for the fault of a name that cannot be looked up (`locate`). SourceFault B310 for a file,
    B310 and B314 for a folder around those of models, such as a run's.
    """
    path = locate(name, folder, field)
    if field == "name" and path.is_file():
        raise SourceFault(
            "B310",
            f"`{name}` is a file, and a model is a folder",
            field="name",
            help="name the folder that save_pretrained wrote: config.json, weights and a tokenizer",
        )
    kind, wanted = ("tokenizer", _TOKENIZER) if field == "tokenizer" else ("model", _MODEL)
    if path.is_dir() and not _holds(path, wanted) and (inside := _folders_with(path, wanted)):
        said = "is the folder of a run" if (path / "resolved.json").is_file() else f"holds no {kind}"
        raise SourceFault(
            "B314" if field == "tokenizer" else "B310",
            f"`{name}` {said}",
            help=f"name the folder of the {kind} in it: "
            + " or ".join(f"`{name.rstrip('/')}/{x}`" for x in inside[:3]),
            field=field,
        )
    return str(path) if path.is_dir() else name


def _holds(folder: Path, files: Sequence[str]) -> bool:
    return any(found for file in files for found in folder.glob(file))


def _folders_with(folder: Path, files: Sequence[str]) -> list[str]:
    """The folders below one that hold such a file: those of a run's student or of its heads, else of a checkpoint."""
    for pattern in ("student", "student/*", "alone/student", "checkpoints/best/student", "checkpoints/*/student", "*"):
        if found := [str(path.relative_to(folder)) for path in sorted(folder.glob(pattern)) if _holds(path, files)]:
            return found
    return []


def named_tokens(source: Hf, folder: Path) -> Tokens | None:
    """The tokenizer that a spec names beside a model, None where it names none."""
    if source.tokenizer is None:
        return None
    # a revision is one of the repository that `name` is in, and says nothing about another
    return Tokens(
        local(source.tokenizer, folder, "tokenizer"), source.revision if source.tokenizer == source.name else None
    )


def own_tokens(source: Hf, folder: Path, inherited: Tokens | None) -> Tokens:
    """The tokenizer of a model: that which is named beside it, else the one `inherited` from another model, else that
    of its checkpoint, or one trained on the data.
    """
    if found := named_tokens(source, folder) or inherited:
        return found
    if source.name is not None:
        return Tokens(local(source.name, folder), source.revision)
    return Tokens(None, vocab_size=source.vocab_size or VOCABULARY)


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer by folder or hub name; a `SourceFault` where there is none."""
    return _load_tokenizer(name, revision, stamp_of(name))


def describing_files(folder: Path) -> Iterator[Path]:
    """The files of a local folder that say what a model and its tokenizer are, in the order of their names."""
    return (file for file in sorted(folder.glob("*.*")) if file.suffix in _DESCRIBING)


def stamp_of(name: str) -> object:
    """What changes when the files of a local folder do: a long session must not go on with those of before."""
    files = describing_files(Path(name)) if Path(name).is_dir() else ()
    return tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@lru_cache(maxsize=32)
def _load_tokenizer(name: str, revision: str | None, _stamp: object) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError, KeyError) as error:
        help = (
            "name one: tokenizer=…"
            if Path(name).is_dir()
            else "connect to the hub, or name a local folder: tokenizer=…"
        )
        raise SourceFault(
            "B314", f"no tokenizer can be loaded from `{name}`: {first_line(error)}", field="tokenizer", help=help
        ) from error
    if _is_made_up(found, Path(name)):
        message = f"`{name}` has no vocabulary of a tokenizer beside its weights"
        help = "save it there, too: `tokenizer.save_pretrained(…)`; or name one: tokenizer=…"
        raise SourceFault("B314", message, field="tokenizer", help=help)
    return found


def _is_made_up(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Whether a tokenizer was read from nowhere: transformers makes up an empty one, to which every word is unknown."""
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        return True
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    needs_none = not tokenizer.vocab_files_names
    return folder.is_dir() and not needs_none and not any((folder / file).is_file() for file in files)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what a tokenizer does to text; truncation and padding, which belong to a batch, do not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(sorted(tokenizer.get_vocab().items()))
    plain = type(backend).from_str(backend.to_str())
    _forget_the_last_call(plain)
    return hashlib.sha256(plain.to_str().encode()).hexdigest()[:16]


def as_loaded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy whose files do not depend on what the tokenizer was called with last, as those of a fast one would."""
    found = copy.deepcopy(tokenizer)
    if (backend := getattr(found, "backend_tokenizer", None)) is not None:
        _forget_the_last_call(backend)
    return found


def _forget_the_last_call(backend: Any) -> None:
    """A call leaves its truncation and padding in the tokenizer."""
    backend.no_truncation()
    backend.no_padding()


def ids_behind(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids of the tokens that a tokenizer puts behind every text."""
    found = tokenizer("a", return_special_tokens_mask=True)
    pairs = reversed(list(zip(found["input_ids"], found["special_tokens_mask"], strict=True)))
    return tuple(reversed([token for token, _ in takewhile(lambda pair: pair[1], pairs)]))


def marks_nothing(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer writes a token of its own, CLS or BOS, that can stand for no answer."""
    return bool({tokenizer.cls_token_id, tokenizer.bos_token_id} & set(tokenizer("a")["input_ids"]))


def joins_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether given words (`is_split_into_words`) lose the blanks between them, as bytes do without a space before."""
    apart: list[int] = tokenizer(["a", "a"], is_split_into_words=True)["input_ids"]
    together: list[int] = tokenizer("a a")["input_ids"]
    return apart != together


def first_line(error: BaseException) -> str:
    """What a library's error says, in one line."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
