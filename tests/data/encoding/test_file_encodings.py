"""Files that are not UTF-8: line, byte, the encoding that they are probably in, and how to convert them."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from brewgraph.checking.check import check_names, read_spec
from brewgraph.data.sources.examples import open_examples
from brewgraph.diagnostics import SourceFault, SpecError, UsageError
from brewgraph.recipe.settings.data_sources import Conll, Files, Squad, Text
from brewgraph.source import EncodingError, Source, decode

WESTERN, WINDOWS, CHINESE = "un café déjà bu", "it’s “fine” – déjà", "我喜欢这部电影 很好看"
FORMATS = {
    "a.csv": "text,label\nfine,1\n{0},0\n",
    "a.tsv": "text\tlabel\nfine\t1\n{0}\t0\n",
    "a.jsonl": '{{"text": "fine", "label": 1}}\n{{"text": "x", "label": 1}}\n{{"text": "{0}", "label": 0}}\n',
    "a.json": '[{{"text": "fine", "label": 1}},\n{{"text": "x", "label": 1}},\n{{"text": "{0}", "label": 0}}]\n',
    "a.conll": "fine O\n\n{0} O\n",
    "a.txt": "fine\nmore\n{0}\n",
    "a.squad": '{{"data":\n[{{"paragraphs":\n[{{"context": "{0}", "qas": []}}]}}]}}',
}
ENCODINGS = [
    (WESTERN, "latin-1", "ISO-8859-1", 3),
    (WINDOWS, "cp1252", "CP1252", 3),
    (CHINESE, "gbk", "GB18030", 3),
    (WESTERN, "utf-16", "UTF-16", 1),
    (WESTERN, "utf-16-le", "UTF-16LE", 1),
    (WESTERN, "utf-16-be", "UTF-16BE", 1),
    (WESTERN, "utf-32", "UTF-32", 1),
    ("plain", "utf-16-le", "UTF-16LE", 1),
    ("plain", "utf-16-be", "UTF-16BE", 1),
]


SOURCES = {".conll": Conll, ".txt": Text, ".squad": Squad}


def read(name: str, folder: Path) -> object:
    """As a spec's source reads it."""
    return open_examples(SOURCES.get(Path(name).suffix, Files)(train=name), folder)


@pytest.mark.parametrize(("text", "codec", "said", "line"), ENCODINGS)
@pytest.mark.parametrize("name", FORMATS)
def test_line_byte_encoding_and_remedy(name: str, text: str, codec: str, said: str, line: int, tmp_path: Path) -> None:
    """The byte at that place is the one named and is at fault, and the encoding that is named gives the text back."""
    whole = FORMATS[name].format(text)
    raw = whole.encode(codec)
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(SourceFault) as caught:
        read(name, tmp_path)
    fault = caught.value
    assert (fault.code, fault.field) == ("B404", "train")
    place = re.match(rf"line (\d+) of `{name}` is not UTF-8: byte (\d+) is 0x(..)", fault.message)
    assert place is not None, fault.message
    assert int(place[1]) == line
    assert raw.split(b"\n")[line - 1][int(place[2]) - 1] == int(place[3], 16)
    assert fault.message.endswith(f", and the file is probably {said}")
    named = re.search(r"`iconv -f (\S+) -t UTF-8", fault.help)
    assert named is not None
    assert raw.decode(named[1]) == whole


@pytest.mark.parametrize("text", [WESTERN, WINDOWS, CHINESE, "\ufeffa,b\n" + CHINESE, "plain", "a zero\0 byte", ""])
def test_what_is_utf8_is_read(text: str) -> None:
    """Every script, a byte order mark and a single zero byte pass."""
    assert decode(text.encode(), "`x`") == text


def test_one_place_in_a_file_of_utf8() -> None:
    """Where the rest is UTF-8, nothing is to be converted."""
    with pytest.raises(EncodingError) as caught:
        decode(f"{CHINESE}\n{WESTERN}\n".encode() + b"caf\xe9\n", "`x`")
    assert caught.value.message == "line 3 of `x` is not UTF-8: byte 4 is 0xE9"
    assert caught.value.help == "the rest of the file is UTF-8: fix this byte"


def test_what_is_no_text() -> None:
    """A workbook that is called csv."""
    with pytest.raises(EncodingError, match="save the file as UTF-8; it may not be a text file"):
        decode(b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0\xb5U0#\xf4\0\0\0L\x02", "`x.csv`")


def test_nothing_is_guessed_that_does_not_tell() -> None:
    """Cyrillic in one byte a letter: neither Western nor Chinese."""
    with pytest.raises(EncodingError) as caught:
        decode("мне нравится этот фильм".encode("cp1251"), "`x`")
    assert (caught.value.message.endswith("0xEC"), caught.value.help) == (True, "save the file as UTF-8")


def test_packed_files(tmp_path: Path) -> None:
    """The same words for what is gzipped."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(FORMATS["a.csv"].format(WESTERN).encode("latin-1")))
    with pytest.raises(SourceFault, match=r"line 3 of `a.csv.gz` .* probably ISO-8859-1"):
        read("a.csv.gz", tmp_path)


def test_a_spec_and_what_it_imports(tmp_path: Path) -> None:
    """The spec itself, and with its place the spec that it imports."""
    path = tmp_path / "a.brew"
    path.write_bytes('# Größe\nlet x = "größer"\n'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"line 1 of `.*a.brew` is not UTF-8: byte 5 is 0xF6, and .*ISO-8859-1"):
        read_spec(path)
    with pytest.raises(SpecError) as caught:
        check_names(Source('import "a.brew" as a\n', str(tmp_path / "b.brew")), {})
    found = [d for d in caught.value.diagnostics if d.code == "B114"]
    assert [d.message.partition(":")[0] for d in found] == [f"line 1 of `{path}` is not UTF-8"]
    assert "iconv -f ISO-8859-1" in found[0].help
