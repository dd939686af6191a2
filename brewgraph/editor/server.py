"""The language server: the protocol on one side, texts and their analyses on the other.

A text is read up to names and kinds after every change, in a thread beside the one that answers requests, and published
at once. What needs models and data is checked by a worker process once the user pauses; a change cancels that check.
What the last check found moves along with the text until the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from lsprotocol import types as lsp
from pygls import uris
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from brewgraph.diagnostics import SourceFault, SpecError, UsageError
from brewgraph.editor.analysis import Analysis, Fault, Spot, analyse, nothing
from brewgraph.editor.background import Background
from brewgraph.editor.completion import Completion, Known, complete
from brewgraph.editor.context import context_at
from brewgraph.editor.facts import SpecFacts
from brewgraph.editor.hover import Hover, hover_symbol, hover_word
from brewgraph.editor.index import Symbol, Use
from brewgraph.editor.places import Change, Text
from brewgraph.editor.reference import Page, Reference
from brewgraph.editor.remedies import remedies
from brewgraph.editor.renaming import renamable, rename
from brewgraph.graph.garbage import no_collections
from brewgraph.ops.python_files import find_source
from brewgraph.paths import locate
from brewgraph.source import EncodingError, Source, Span, decode
from brewgraph.syntax import tree as t
from brewgraph.syntax.format import format_source
from brewgraph.syntax.parser import ParsedStatements

PAUSE = 0.3
"""Seconds without a change after which a text is checked in full."""
COST_WAIT = 2.0
"""Seconds that a hover waits for the cost of a value."""
_TRIES = 3
"""How often a check is asked for whose worker has ended."""


@dataclass(eq=False)
class Document:
    """An open text. `analysis` is the newest, `good` the newest one that parsed as a whole."""

    uri: str
    name: str
    text: Text
    version: int | None = None
    known: ParsedStatements = field(default_factory=ParsedStatements)
    tried: ParsedStatements = field(default_factory=ParsedStatements)
    """The statements of the last text that an edit would make."""
    analysis: Analysis | None = None
    good: Analysis | None = None
    facts: SpecFacts = field(default_factory=SpecFacts)
    """Those of the last full check, at their places in the text of `analysis`."""
    late: tuple[Fault, ...] = ()
    """The faults of the last full check that reading alone does not find."""
    reading: asyncio.Task[None] | None = None
    checking: asyncio.Task[None] | None = None
    costs: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    """What was asked of names of the text of `analysis`."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    encoding: Fault | None = None

    @property
    def source(self) -> Source:
        return Source(self.text.text, self.name)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Everything to publish."""
        own = self.analysis.faults if self.analysis is not None else ()
        return tuple(dict.fromkeys((*((self.encoding,) if self.encoding is not None else ()), *own, *self.late)))

    def move(self, old: str, new: str) -> None:
        """Carry what the last check found from one text to the next."""
        change = Change.between(old, new)
        moved = ((fault, change.carry(fault.start, fault.end)) for fault in self.late)
        self.late = tuple(fault.moved(*place) for fault, place in moved if place is not None)
        shapes = ((x, change.carry(x.start, x.end)) for x in self.facts.shapes)
        terms = ((x, change.carry(x.start, x.start)) for x in self.facts.terms)
        self.facts = replace(
            self.facts,
            shapes=tuple(replace(x, start=p[0], end=p[1]) for x, p in shapes if p is not None),
            terms=tuple(replace(x, start=p[0]) for x, p in terms if p is not None),
        )

    def use_at(self, offset: int) -> tuple[Analysis, Use] | None:
        """The name at an offset of the newest text, in an analysis of that text."""
        if self.analysis is None or self.analysis.source.text != self.text.text:
            return None
        use = self.analysis.index.at(offset)
        return None if use is None else (self.analysis, use)


class Editor:
    """The open documents, and what is done with them."""

    def __init__(self, server: LanguageServer, reference: Reference):
        self.server, self.reference = server, reference
        self.documents: dict[str, Document] = {}
        self.background = Background()
        self.pool = ThreadPoolExecutor(1, "reading")

    # ── documents ────────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, uri: str, text: str, number: int | None) -> None:
        """A new or changed text."""
        unit = lsp.PositionEncodingKind(self.server.workspace.position_encoding or "utf-16").value
        document = self.documents.get(uri)
        here = Text(_one_line_end(text), unit)
        if document is None:
            document = self.documents[uri] = Document(uri, self._name(uri), here, number)
            document.encoding = _encoding_fault(document.name)
        document.text, document.version = here, number
        self.refresh(document)

    def refresh(self, document: Document) -> None:
        """Read a document again, and then check it."""
        self._stop_checking(document)
        document.changed.clear()
        if document.reading is None or document.reading.done():
            document.reading = asyncio.create_task(self._read(document))

    def close(self, uri: str) -> None:
        document = self.documents.pop(uri, None)
        if document is not None:
            self._stop_checking(document)
            if document.reading is not None:
                document.reading.cancel()
            document.changed.set()
            self.server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri=uri, diagnostics=[]))

    def _stop_checking(self, document: Document) -> None:
        """Cancel what is asked of the worker about a text that is no longer the newest."""
        for task in (document.checking, *document.costs.values()):
            if task is not None:
                task.cancel()
        document.checking = None
        document.costs.clear()

    def saved(self, uri: str) -> None:
        """A file was written: specs that import it or build on it read it anew."""
        for document in self.documents.values():
            if document.uri == uri:
                document.encoding = _encoding_fault(document.name)
            self.refresh(document)

    def _name(self, uri: str) -> str:
        """The path of a document. One that was never saved is taken to stand in the workspace's folder."""
        path = uris.to_fs_path(uri) if uri.startswith("file:") else None
        if path:
            return str(path)
        root: str | None = self.server.workspace.root_path
        stem = Path(unquote(urlparse(uri).path)).name or "untitled"
        return str(Path(root or ".") / (stem if stem.endswith(".brew") else f"{stem}.brew"))

    async def _read(self, document: Document) -> None:
        """Read the newest text, until there is no newer one; then publish, and check in the background."""
        loop = asyncio.get_running_loop()
        with no_collections():  # until all of it is published
            while True:
                text, source = document.text.text, document.source
                try:
                    analysis = await loop.run_in_executor(self.pool, analyse, source, document.known)
                except Exception as error:  # a fault of brewgraph: requests are answered as for an empty text
                    message = f"brewgraph cannot read {document.name}: {type(error).__name__}: {error}"
                    self.server.window_log_message(lsp.LogMessageParams(lsp.MessageType.Error, message))
                    analysis = nothing(source)
                if document.analysis is not None:
                    document.move(document.analysis.source.text, text)
                document.analysis = analysis
                document.good = analysis if analysis.parsed or document.good is None else document.good
                if document.text.text == text:
                    break
            document.changed.set()
            self.publish(document)
        document.checking = asyncio.create_task(self._check(document, source))

    async def _check(self, document: Document, source: Source) -> None:
        """Check a text in full once the user pauses."""
        await asyncio.sleep(PAUSE)
        for _ in range(_TRIES):
            result = await self.background.ask("check", name=source.name, text=source.text)
            if result is not None:
                break
        else:
            return
        facts = SpecFacts.from_json(result)
        if document.analysis is None or document.analysis.source.text != source.text:
            return
        own = {(fault.code, fault.start, fault.end, fault.message) for fault in document.analysis.faults}
        document.late = tuple(
            fault for fault in facts.faults if (fault.code, fault.start, fault.end, fault.message) not in own
        )
        if any(not fault.is_warning for fault in facts.faults):  # it did not get as far as before
            facts = replace(document.facts, models={**document.facts.models, **facts.models})
        document.facts = facts
        self.publish(document)
        if self.server.client_capabilities.workspace and self.server.client_capabilities.workspace.inlay_hint:
            self.server.workspace_inlay_hint_refresh(None)  # whose answer nobody waits for

    async def settled(self, document: Document) -> Analysis:
        """The analysis of the newest text; of a document that is closed meanwhile that of none."""
        while document.analysis is None or document.analysis.source.text != document.text.text:
            await document.changed.wait()
            if document.uri not in self.documents:
                return nothing(document.source)
        return document.analysis

    # ── diagnostics ──────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, document: Document) -> None:
        text = (
            Text(document.analysis.source.text, document.text.unit) if document.analysis is not None else document.text
        )
        diagnostics = [self.diagnostic(fault, text, document.uri) for fault in document.faults]
        self.server.text_document_publish_diagnostics(
            lsp.PublishDiagnosticsParams(uri=document.uri, diagnostics=diagnostics, version=document.version)
        )

    def diagnostic(self, fault: Fault, text: Text, uri: str) -> lsp.Diagnostic:
        first = f"{fault.message} ({fault.note})" if fault.note else fault.message
        message = "\n".join(filter(None, (first, fault.help and f"help: {fault.help}")))
        page = Path(str(files("brewgraph.explanations") / f"{fault.code}.md"))
        tags = [lsp.DiagnosticTag.Unnecessary] if fault.code in _UNUSED else None
        return lsp.Diagnostic(
            range=_range(text, fault.start, max(fault.end, fault.start)),
            message=message,
            severity=lsp.DiagnosticSeverity.Warning if fault.is_warning else lsp.DiagnosticSeverity.Error,
            code=fault.code or None,
            code_description=lsp.CodeDescription(href=page.as_uri()) if fault.code and page.is_file() else None,
            source="brewgraph",
            tags=tags,
            related_information=[
                lsp.DiagnosticRelatedInformation(_location(spot, uri), spot.text or "here") for spot in fault.spots
            ]
            or None,
        )

    # ── what is known at a place ─────────────────────────────────────────────────────────────────────────────────────

    def known(self, document: Document, offset: int) -> Known | None:
        """The names that can be said at an offset of the newest text, from the newest analysis that has its body."""
        analysis = document.analysis
        if analysis is None:
            return None
        if not analysis.parsed and document.good is not None:
            analysis = document.good
        change = Change.between(analysis.source.text, document.text.text)
        scope = analysis.index.scope_at(change.back(offset))
        return Known(analysis.index, scope, document.facts.models, self.reference)

    async def costs(self, document: Document, symbol: Symbol) -> list[list[str]]:
        """What the worker knows of a name; nothing if the spec is at fault. What takes too long is there later."""
        if any(not fault.is_warning for fault in document.faults):
            return []
        name = ".".join((*symbol.path, symbol.name))
        if name not in document.costs:
            asked = self.background.ask("explain", name=document.name, text=document.text.text, what=name)
            document.costs[name] = asyncio.create_task(asked)
        task = document.costs[name]
        await asyncio.wait({task}, timeout=COST_WAIT)
        if not task.done():
            return [["cost", "being computed; ask again"]]
        if task.cancelled() or not task.result():  # not checked yet
            document.costs.pop(name, None)
            return []
        rows: list[list[str]] = task.result()
        return rows


_UNUSED = frozenset({"W102", "W205", "W406"})
"""Warnings of what nothing reads, which editors show faded."""


def _one_line_end(text: str) -> str:
    """A text in which `\\r` alone, which ends a line for an editor, does so here."""
    return (
        "".join("\n" if c == "\r" and text[i + 1 : i + 2] != "\n" else c for i, c in enumerate(text))
        if "\r" in text
        else text
    )


def _encoding_fault(name: str) -> Fault | None:
    """A fault of a file that is not UTF-8: the editor shows it in another encoding, and every command refuses it."""
    try:
        raw = Path(name).read_bytes()
    except (OSError, ValueError):  # none is there, or none can be
        return None
    try:
        decode(raw, f"`{Path(name).name}`")
    except EncodingError as error:
        return Fault("", error.message, error.help, "", 0, 0)
    return None


def _range(text: Text, start: int, end: int) -> lsp.Range:
    return lsp.Range(lsp.Position(*text.place(start)), lsp.Position(*text.place(end)))


def _location(spot: Spot, uri: str) -> lsp.Location:
    place = lsp.Range(lsp.Position(spot.row, spot.column), lsp.Position(spot.end_row, spot.end_column))
    return lsp.Location(Path(spot.file).resolve().as_uri() if spot.file else uri, place)


_ITEMS = {
    "keyword": lsp.CompletionItemKind.Keyword, "model": lsp.CompletionItemKind.Class,
    "data": lsp.CompletionItemKind.Struct, "constant": lsp.CompletionItemKind.Constant,
    "value": lsp.CompletionItemKind.Variable, "function": lsp.CompletionItemKind.Function,
    "projection": lsp.CompletionItemKind.Function, "option": lsp.CompletionItemKind.Property,
    "setting": lsp.CompletionItemKind.Property, "word": lsp.CompletionItemKind.EnumMember,
    "feature": lsp.CompletionItemKind.Field, "module": lsp.CompletionItemKind.Module,
    "file": lsp.CompletionItemKind.File, "folder": lsp.CompletionItemKind.Folder, "code": lsp.CompletionItemKind.Value,
}  # fmt: skip
_SYMBOLS = {
    "param": lsp.SymbolKind.Constant, "let": lsp.SymbolKind.Constant, "teacher": lsp.SymbolKind.Class,
    "student": lsp.SymbolKind.Class, "data": lsp.SymbolKind.Struct, "function": lsp.SymbolKind.Function,
    "task": lsp.SymbolKind.Namespace, "stage": lsp.SymbolKind.Namespace, "import": lsp.SymbolKind.Module,
    "head": lsp.SymbolKind.Field, "proj": lsp.SymbolKind.Object, "tap": lsp.SymbolKind.Field,
}  # fmt: skip
_TOKENS = {
    "param": "parameter", "parameter": "parameter", "teacher": "class", "student": "class", "data": "struct",
    "function": "function", "task": "namespace", "stage": "namespace", "import": "namespace", "head": "property",
}  # fmt: skip
TOKEN_TYPES = ["variable", "parameter", "class", "struct", "function", "namespace", "property"]


def _item(word: Completion, text: Text, start: int, end: int, order: int) -> lsp.CompletionItem:
    return lsp.CompletionItem(
        label=word.label,
        kind=_ITEMS[word.kind],
        detail=word.detail or None,
        sort_text=f"{order:05}",
        filter_text=word.label,
        insert_text_format=lsp.InsertTextFormat.Snippet if word.snippet else lsp.InsertTextFormat.PlainText,
        text_edit=lsp.TextEdit(_range(text, start, end), word.insert or word.label),
        data=word.page or None,
    )


def _outline(statements: Iterable[t.Statement], text: Text) -> list[lsp.DocumentSymbol]:
    """The statements of a body as a tree."""
    symbols = []
    for s in statements:
        name, place, kind = "", s.span, lsp.SymbolKind.Variable
        inner: Iterable[t.Statement] = ()
        match s:
            case t.Named():
                name, place = s.name, s.name_span
                word = s.role if isinstance(s, t.Model) else type(s).__name__.lower()
                kind = _SYMBOLS.get(word, kind)
                block = getattr(s, "block", None)
                inner = block.statements if isinstance(block, t.Block) else ()
            case t.Train():
                name, kind, inner = "train", lsp.SymbolKind.Object, s.block.statements
            case t.Sample():
                name, kind = "sample", lsp.SymbolKind.Object
            case _:
                continue
        detail = " ".join(s.span.text.split("\n")[0].split())
        symbols.append(
            lsp.DocumentSymbol(
                name=name,
                kind=kind,
                range=_range(text, s.span.start, s.span.end),
                selection_range=_range(text, place.start, place.end),
                detail=detail if len(detail) <= 80 else f"{detail[:79]}…",
                children=_outline(inner, text) or None,
            )
        )
    return symbols


def _file_at(analysis: Analysis, offset: int) -> Path | None:
    """The file that a string under the cursor names."""
    for node in analysis.spec.walk():
        if not node.span.start <= offset <= node.span.end:
            continue
        name = node.target if isinstance(node, t.Import) else node.value if isinstance(node, t.String) else ""
        if isinstance(node, t.Import) and not node.is_spec:
            return find_source(name, analysis.source.folder)
        with suppress(SourceFault, OSError, ValueError):
            if name and (path := locate(name, analysis.source.folder)).is_file():
                return path
    return None


def build(pages: Iterable[Page]) -> LanguageServer:
    """The server. `pages` explain operations, sources and settings."""
    server = LanguageServer("brewgraph", version("brewgraph"), text_document_sync_kind=lsp.TextDocumentSyncKind.Full)
    editor = Editor(server, Reference(pages))
    _add_documents(server, editor)
    _add_names(server, editor)
    _add_help(server, editor)
    _add_edits(server, editor)
    return server


def _add_documents(server: LanguageServer, editor: Editor) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        editor.put(params.text_document.uri, params.text_document.text, params.text_document.version)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        text = server.workspace.get_text_document(params.text_document.uri).source
        editor.put(params.text_document.uri, text, params.text_document.version)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        editor.close(params.text_document.uri)

    @server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: lsp.DidSaveTextDocumentParams) -> None:
        editor.saved(params.text_document.uri)

    @server.feature(lsp.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def written(params: lsp.DidChangeWatchedFilesParams) -> None:
        editor.saved("")

    @server.feature(lsp.SHUTDOWN)
    def ended(params: Any) -> None:
        editor.background.close()
        editor.pool.shutdown(wait=False, cancel_futures=True)


def _add_names(server: LanguageServer, editor: Editor) -> None:
    def at(params: Any) -> tuple[Document, int] | None:
        document = editor.documents.get(params.text_document.uri)
        if document is None:
            return None
        return document, document.text.offset(params.position.line, params.position.character)

    async def use_at(params: Any) -> tuple[Document, Analysis, Use] | None:
        here = at(params)
        if here is None:
            return None
        await editor.settled(here[0])
        used = here[0].use_at(here[1])
        return None if used is None else (here[0], *used)

    def place_of(span: Span, document: Document) -> lsp.Location:
        if span.source.name == document.name:
            return lsp.Location(document.uri, _range(document.text, span.start, span.end))
        other = Text(span.source.text, document.text.unit)
        return lsp.Location(Path(span.source.name).resolve().as_uri(), _range(other, span.start, span.end))

    @server.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    async def definition(params: lsp.DefinitionParams) -> lsp.Location | None:
        used = await use_at(params)
        if used is not None:
            document, _, use = used
            return place_of(use.symbol.place, document)
        here = at(params)
        if here is None or here[0].analysis is None:
            return None
        path = _file_at(here[0].analysis, here[1])
        start = lsp.Position(0, 0)
        return None if path is None else lsp.Location(path.resolve().as_uri(), lsp.Range(start, start))

    @server.feature(lsp.TEXT_DOCUMENT_REFERENCES)
    async def references(params: lsp.ReferenceParams) -> list[lsp.Location]:
        used = await use_at(params)
        if used is None:
            return []
        document, analysis, use = used
        own = use.symbol.place
        spans = analysis.index.uses_of(use.symbol)
        return [place_of(span, document) for span in spans if params.context.include_declaration or span != own]

    @server.feature(lsp.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
    async def highlight(params: lsp.DocumentHighlightParams) -> list[lsp.DocumentHighlight]:
        used = await use_at(params)
        if used is None:
            return []
        document, analysis, use = used
        return [lsp.DocumentHighlight(place_of(x, document).range) for x in analysis.index.uses_of(use.symbol)]

    @server.feature(lsp.TEXT_DOCUMENT_PREPARE_RENAME)
    async def prepare_rename(params: lsp.PrepareRenameParams) -> lsp.Range | None:
        used = await use_at(params)
        if used is None:
            return None
        document, analysis, use = used
        _refusing(lambda: renamable(use, analysis))
        return _range(document.text, use.place.start, use.place.end)

    @server.feature(lsp.TEXT_DOCUMENT_RENAME, lsp.RenameOptions(prepare_provider=True))
    async def renamed(params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
        used = await use_at(params)
        if used is None:
            raise JsonRpcInvalidParams("there is no name here to rename")
        document, analysis, use = used
        again = partial(_again, document)
        symbol = _refusing(lambda: renamable(use, analysis))
        loop = asyncio.get_running_loop()
        try:
            places = await loop.run_in_executor(editor.pool, rename, symbol, params.new_name, analysis, again)
        except UsageError as error:
            raise JsonRpcInvalidParams(str(error)) from error
        edits = [lsp.TextEdit(_range(document.text, *place), params.new_name) for place in places]
        return lsp.WorkspaceEdit(changes={document.uri: edits})

    @server.feature(lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    async def symbols(params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol]:
        document = editor.documents.get(params.text_document.uri)
        if document is None:
            return []
        analysis = await editor.settled(document)
        return _outline(analysis.spec.statements, Text(analysis.source.text, document.text.unit))

    @server.feature(
        lsp.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, lsp.SemanticTokensLegend(token_types=TOKEN_TYPES, token_modifiers=[])
    )
    async def tokens(params: lsp.SemanticTokensParams) -> lsp.SemanticTokens:
        document = editor.documents.get(params.text_document.uri)
        if document is None:
            return lsp.SemanticTokens(data=[])
        analysis = await editor.settled(document)
        text, data, row, column = Text(analysis.source.text, document.text.unit), list[int](), 0, 0
        for place, kind in sorted({(u.place.start, u.place.end): u.symbol.kind for u in analysis.index.uses}.items()):
            (here, start), (_, end) = text.place(place[0]), text.place(place[1])
            data += [here - row, start - column if here == row else start, end - start]
            data += [TOKEN_TYPES.index(_TOKENS.get(kind, "variable")), 0]
            row, column = here, start
        return lsp.SemanticTokens(data=data)


def _again(document: Document, text: str) -> Analysis:
    """Another text in a document's place. Called in the thread that reads."""
    with no_collections():
        return analyse(Source(text, document.name), document.tried)


def _refusing(action: Callable[[], Any]) -> Any:
    """What an action gives; a `UsageError` is the client's to show."""
    try:
        return action()
    except UsageError as error:
        raise JsonRpcInvalidParams(str(error)) from error


def _add_help(server: LanguageServer, editor: Editor) -> None:
    @server.feature(
        lsp.TEXT_DOCUMENT_COMPLETION,
        lsp.CompletionOptions(trigger_characters=[".", '"', "@", "/", "[", "{", "(", "="], resolve_provider=True),
    )
    def completion(params: lsp.CompletionParams) -> lsp.CompletionList:
        document = editor.documents.get(params.text_document.uri)
        nothing = lsp.CompletionList(is_incomplete=False, items=[])
        if document is None:
            return nothing
        text = document.text
        offset = text.offset(params.position.line, params.position.character)
        known = editor.known(document, offset)
        if known is None:
            return replace_incomplete(nothing)
        context = context_at(text.text, offset)
        words = complete(context, known)
        start = context.start
        if context.in_string or context.in_comment:  # of a path what stands after the last slash, else all of it
            is_file = any(word.kind in ("file", "folder") for word in words)
            rest = context.prefix.rpartition("/")[2] if is_file else context.prefix
            if not is_file and words and words[0].kind in ("constant", "code"):
                rest = rest.rpartition("{" if words[0].kind == "constant" else "[")[2].rpartition(",")[2].lstrip()
            start = offset - len(rest)
        items = [_item(word, text, start, offset, i) for i, word in enumerate(words)]
        return lsp.CompletionList(is_incomplete=context.in_string, items=items)

    def replace_incomplete(answer: lsp.CompletionList) -> lsp.CompletionList:
        return lsp.CompletionList(is_incomplete=True, items=answer.items)

    @server.feature(lsp.COMPLETION_ITEM_RESOLVE)
    def resolve(item: lsp.CompletionItem) -> lsp.CompletionItem:
        if isinstance(item.data, str) and (page := editor.reference.text(item.data)):
            item.documentation = lsp.MarkupContent(lsp.MarkupKind.Markdown, page)
        return item

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    async def hover(params: lsp.HoverParams) -> lsp.Hover | None:
        document = editor.documents.get(params.text_document.uri)
        if document is None:
            return None
        await editor.settled(document)
        offset = document.text.offset(params.position.line, params.position.character)
        facts, answer = document.facts, None
        used = document.use_at(offset)
        if used is not None:
            costs = await editor.costs(document, used[1].symbol)
            answer = hover_symbol(used[1], facts.terms, facts.shapes, costs)
        elif (known := editor.known(document, offset)) is not None:
            answer = hover_word(document.text.text, offset, known, facts.shapes)
        return _shown(answer, document)

    def _shown(answer: Hover | None, document: Document) -> lsp.Hover | None:
        if answer is None:
            return None
        content = lsp.MarkupContent(lsp.MarkupKind.Markdown, answer.markdown)
        return lsp.Hover(content, _range(document.text, answer.start, answer.end))

    @server.feature(lsp.TEXT_DOCUMENT_INLAY_HINT)
    async def hints(params: lsp.InlayHintParams) -> list[lsp.InlayHint]:
        document = editor.documents.get(params.text_document.uri)
        if document is None:
            return []
        await editor.settled(document)
        text = document.text
        first, last = (text.offset(p.line, p.character) for p in (params.range.start, params.range.end))
        hints = [
            lsp.InlayHint(lsp.Position(*text.place(x.end)), x.text, lsp.InlayHintKind.Type, padding_left=True)
            for x in document.facts.shapes
            if first <= x.end <= last
        ]
        weights: dict[int, dict[str, None]] = {}
        for term in document.facts.terms:
            if first <= term.start <= last and term.weight != "1":
                weights.setdefault(term.start, {})[term.weight] = None
        for start, texts in weights.items():
            label = f"× {' or '.join(texts)}"
            hints.append(lsp.InlayHint(lsp.Position(*text.place(start)), label, padding_left=True))
        return hints


def _add_edits(server: LanguageServer, editor: Editor) -> None:
    @server.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def formatting(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit]:
        document = editor.documents.get(params.text_document.uri)
        if document is None:
            return []
        text = document.text.text
        try:
            after = format_source(Source(text.replace("\r\n", "\n"), document.name))
        except SpecError:
            return []  # its faults are published
        after = after.replace("\n", "\r\n") if "\r\n" in text else after
        change = Change.between(text, after)
        if change.start == change.end and not change.length:
            return []
        new = after[change.start : change.start + change.length]
        return [lsp.TextEdit(_range(document.text, change.start, change.end), new)]

    @server.feature(
        lsp.TEXT_DOCUMENT_CODE_ACTION, lsp.CodeActionOptions(code_action_kinds=[lsp.CodeActionKind.QuickFix])
    )
    async def actions(params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        document = editor.documents.get(params.text_document.uri)
        if document is None:
            return []
        analysis = await editor.settled(document)
        text = document.text
        first, last = (text.offset(p.line, p.character) for p in (params.range.start, params.range.end))
        answers = []
        for fault in document.faults:
            if not (fault.start <= last and first <= fault.end) or not fault.code:
                continue
            loop = asyncio.get_running_loop()
            edits = await loop.run_in_executor(editor.pool, remedies, fault, analysis, partial(_again, document))
            for i, edit in enumerate(edits):
                change = lsp.TextEdit(_range(text, edit.start, edit.end), edit.text)
                answers.append(
                    lsp.CodeAction(
                        title=edit.title,
                        kind=lsp.CodeActionKind.QuickFix,
                        diagnostics=[editor.diagnostic(fault, text, document.uri)],
                        is_preferred=i == 0 and not edit.title.startswith("ignore"),
                        edit=lsp.WorkspaceEdit(changes={document.uri: [change]}),
                    )
                )
        return answers
