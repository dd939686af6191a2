"""Text to tree: each statement's node, expressions and their precedence, spans, and words that are names elsewhere."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from lark import Lark

from brewgraph.diagnostics import Collector
from brewgraph.source import Source, Span
from brewgraph.syntax import grammar as grammars
from brewgraph.syntax import tree as t
from brewgraph.syntax.grammar import grammar, grammar_text
from brewgraph.syntax.parser import parse
from tests.syntax.strategies import MAIN, Written, read, specs

NOWHERE = Span(Source(""), 0, 0)


def only(text: str) -> t.Statement:
    """The single statement of a text."""
    (statement,) = read(text).statements
    return statement


def value(text: str) -> t.Expression:
    """The expression `text`, read as the right side of an equation."""
    statement = only(f"x = {text}")
    assert isinstance(statement, t.Equation)
    return statement.value


def shown(node: Any) -> str:
    """A node in one line, brackets everywhere: what precedence made of it."""
    match node:
        case t.Constant(found) | t.String(found) | t.Name(found):
            return str(found).lower() if found is None or isinstance(found, bool) else str(found)
        case t.Size(found):
            return str(found)
        case t.Percent(found):
            return f"{found:g}%"
        case t.Duration(found, unit):
            return f"{found:g}{unit}"
        case t.Binary(left, operator, right):
            return f"({shown(left)}{operator}{shown(right)})"
        case t.Negative(operand):
            return f"(-{shown(operand)})"
        case t.Via(found, projection):
            return f"({shown(found)} via {shown(projection)})"
        case t.Arrow(source, target):
            return f"({shown(source)}->{shown(target)})"
        case t.Attribute(found, name):
            return f"{shown(found)}.{name}"
        case t.Call(function, arguments):
            return f"{shown(function)}({','.join(map(shown, arguments))})"
        case t.Argument(found, name, key):
            return (f"{name}=" if name else f"{shown(key)}:" if key else "") + shown(found)
        case t.Index(found, items):
            return f"{shown(found)}[{','.join(map(shown, items))}]"
        case t.Slice(start, stop, step):
            return ":".join("" if part is None else shown(part) for part in (start, stop, step))
        case t.At(model, path, input):
            return f"{shown(model)}@{'input ' if input else ''}{path.value}"
        case t.List(items):
            return f"[{','.join(map(shown, items))}]"
        case t.Tuple(items):
            return f"<{','.join(map(shown, items))}>"
    raise AssertionError(node)


def test_the_main_example() -> None:
    """The recipe of the language's first page: its statements, their names, and one equation to the bottom."""
    statements = read(MAIN).statements
    assert [type(s).__name__ for s in statements] == (
        [
            "Version",
            "Param",
            "Model",
            "Model",
            "Data",
            "Let",
            "Equation",
            "Equation",
            "Equation",
            "Equation",
            "Equation",
            "Train",
        ]
    )
    assert [s.name for s in statements if isinstance(s, t.Named)] == (
        ["T", "bert", "tiny", "mnli", "map", "soft", "hard", "hidden", "gram", "loss"]
    )
    hidden, loss, train = statements[8], statements[10], statements[11]
    assert isinstance(hidden, t.Equation)
    assert isinstance(loss, t.Equation)
    assert isinstance(train, t.Train)
    assert shown(hidden.value) == "mse((bert.hidden[map]->(tiny.hidden[map] via linear)))"
    assert shown(loss.value) == "(((soft+(0.3*hard))+sum(hidden))+sum(gram))"
    assert [s.name for s in train.block.statements if isinstance(s, t.Equation)] == ["epochs", "optimizer", "schedule"]


STATEMENTS: dict[str, tuple[type, dict[str, Any]]] = {
    "brew 1": (t.Version, {"number": 1}),
    'import "lib/my-losses.brew" as lib': (t.Import, {"name": "lib", "target": "lib/my-losses.brew", "is_spec": True}),
    'import "lib/my-losses.brew"': (t.Import, {"name": "my_losses", "is_spec": True}),
    "import pack.losses as my": (t.Import, {"name": "my", "target": "pack.losses", "is_spec": False}),
    "import pack.losses": (t.Import, {"name": "losses", "target": "pack.losses"}),
    "param T": (t.Param, {"name": "T", "type": None, "default": None}),
    "param T = 4": (t.Param, {"name": "T", "type": None, "default": "4"}),
    "param width: int = 384": (t.Param, {"name": "width", "type": "int", "default": "384"}),
    "let map = [0, 4] -> [0, 1]": (t.Let, {"name": "map", "value": "([0,4]->[0,1])"}),
    'teacher b = hf("x")': (t.Model, {"name": "b", "role": "teacher", "source": "hf(x)", "block": None}),
    'student s = hf("x")': (t.Model, {"name": "s", "role": "student", "source": "hf(x)", "block": None}),
    "head ner = token_classifier(labels=9)": (t.Head, {"name": "ner", "source": "token_classifier(labels=9)"}),
    "data both = a + b": (t.Data, {"name": "both", "source": "(a+b)"}),
    'tap t = bert @ "layer.*"[1]': (t.Tap, {"name": "t", "value": "bert@layer.*[1]"}),
    'tap t = bert @ input "layer"': (t.Tap, {"name": "t", "value": "bert@input layer"}),
    "proj W = linear(312 -> 768, lr=1e-3)": (t.Proj, {"name": "W", "value": "linear((312->768),lr=0.001)"}),
    'cache h = bert.hidden at "folder"': (
        t.Cache,
        {"name": "h", "value": "bert.hidden", "path": "folder", "limit": None},
    ),
    'cache h = b.logits at "x" as bf16 limit 1.5 TB': (
        t.Cache,
        {"path": "x", "dtype": "bf16", "limit": "1500000000000"},
    ),
    "loss = soft": (t.Equation, {"name": "loss", "value": "soft"}),
    "f(a, b=2,) = a -> b": (t.Function, {"name": "f", "value": "(a->b)"}),
    "f() = 1": (t.Function, {"name": "f", "parameters": (), "value": "1"}),
    "sample [ner, qa] ~ size ** 0.5": (t.Sample, {"tasks": "[ner,qa]", "law": "(size**0.5)", "options": ()}),
    "sample all": (t.Sample, {"tasks": "all", "law": None}),
}


@pytest.mark.parametrize("text", STATEMENTS)
def test_each_statement_has_its_node(text: str) -> None:
    """The node's class and its fields; expressions in fields are compared in one line."""
    kind, expected = STATEMENTS[text]
    statement = only(text)
    assert type(statement) is kind
    found = {name: getattr(statement, name) for name in expected}
    assert {k: shown(v) if isinstance(v, t.Node) else v for k, v in found.items()} == expected
    assert statement.span.text == text


def test_parameters_of_a_function() -> None:
    """Each has a name, its place, and a default or none."""
    function = only("f(a, b=2) = a")
    assert isinstance(function, t.Function)
    assert [(p.name, p.default and shown(p.default), p.name_span.text) for p in function.parameters] == [
        ("a", None, "a"),
        ("b", "2", "b"),
    ]


@pytest.mark.parametrize("text", ["x =\n---a", "x = (b\n-- a)", "x = b *\n-- a", "x = f([b,\n--- a])"])
def test_a_number_negated_at_the_beginning_of_a_line(text: str) -> None:
    """`--` begins no comment where an operand is expected or brackets are open."""
    assert "-(-" in shown(only(text).value)


def test_options_of_a_sample() -> None:
    """Named options follow the law."""
    sample = only("sample [a, b] ~ batches, floor = 0.1, ceiling = 0.9")
    assert isinstance(sample, t.Sample)
    assert [shown(option) for option in sample.options] == ["floor=0.1", "ceiling=0.9"]


def test_blocks_nest() -> None:
    """A stage holds a length and tasks, a student its heads; an empty block is one."""
    stage = only("stage one for 3 epochs {\n  task ner { loss = a; student s = hf() { head h = b() } }\n}")
    assert isinstance(stage, t.Stage)
    assert stage.length == t.Duration(3, "epoch", span=stage.span)
    (task,) = stage.block.statements
    assert isinstance(task, t.Task)
    assert task.name == "ner"
    loss, student = task.block.statements
    assert isinstance(loss, t.Equation)
    assert isinstance(student, t.Model)
    assert student.block is not None
    assert [s.name for s in student.block.statements if isinstance(s, t.Head)] == ["h"]
    empty = only("stage two { }")
    assert isinstance(empty, t.Stage)
    assert empty.length is None
    assert empty.block.statements == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b * c ** d", "(a+(b*(c**d)))"),
        ("a - b - c", "((a-b)-c)"),
        ("a / b * c", "((a/b)*c)"),
        ("a ** b ** c", "(a**(b**c))"),
        ("-a ** 2", "(-(a**2))"),
        ("2 ** -a", "(2**(-a))"),
        ("a * -b", "(a*(-b))"),
        ("--a", "(-(-a))"),
        ("(a + b) * c", "((a+b)*c)"),
        ("a + b via linear", "((a+b) via linear)"),
        ("a -> b + c via W(3)", "(a->((b+c) via W(3)))"),
        ("a via U via V", "((a via U) via V)"),
        ("f(a -> b, T=2, 30%: 0.2,)", "f((a->b),T=2,30%:0.2)"),
        ("f((a, b) -> (c,))", "f((<a,b>-><c>))"),
        ("a.b(c)[0].d", "a.b(c)[0].d"),
        ("a[::4, 1:3, :, -1, 2:]", "a[::4,1:3:,::,(-1),2::]"),
        ("[a -> b, 2,]", "[(a->b),2]"),
        ("[]", "[]"),
        ("f()", "f()"),
        ("3 .x", "3.x"),
        ('a @ "p"[1]', "a@p[1]"),
    ],
)
def test_precedence(text: str, expected: str) -> None:
    """What binds tighter stands in the inner brackets."""
    assert shown(value(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", t.Constant(12, span=NOWHERE)),
        ("1.", t.Constant(1.0, span=NOWHERE)),
        ("1e-4", t.Constant(0.0001, span=NOWHERE)),
        ("2.5E+3", t.Constant(2500.0, span=NOWHERE)),
        ("true", t.Constant(True, span=NOWHERE)),
        ("false", t.Constant(False, span=NOWHERE)),
        ("none", t.Constant(None, span=NOWHERE)),
        ("10%", t.Percent(10.0, span=NOWHERE)),
        ("2.5%", t.Percent(2.5, span=NOWHERE)),
        ("3 epochs", t.Duration(3.0, "epoch", span=NOWHERE)),
        ("1 step", t.Duration(1.0, "step", span=NOWHERE)),
        ("0.5 \t epoch", t.Duration(0.5, "epoch", span=NOWHERE)),
        ('"naïve ツ {n} # no comment"', t.String("naïve ツ {n} # no comment", span=NOWHERE)),
        ('""', t.String("", span=NOWHERE)),
    ],
)
def test_literals(text: str, expected: t.Expression) -> None:
    """Each literal is one node, of its own type."""
    found = value(text)
    assert found == expected
    assert type(getattr(found, "value", None)) is type(getattr(expected, "value", None))


SPANS = {
    "bert.hidden[map] -> tiny.hidden[0:2] via linear": [
        "bert.hidden[map] -> tiny.hidden[0:2] via linear",
        "bert.hidden[map]",
        "bert.hidden",
        "bert",
        "map",
        "tiny.hidden[0:2] via linear",
        "tiny.hidden[0:2]",
        "tiny.hidden",
        "tiny",
        "0:2",
        "0",
        "2",
        "linear",
    ],
    'f( a , T = 2 ) * ( -b ) [ : ]': ["f( a , T = 2 ) * ( -b ) [ : ]", "f( a , T = 2 )", "f", "a", "a", "T = 2", "2",
                                      "( -b ) [ : ]", "-b", "b", ":"],
    "(a, 30%)": ["(a, 30%)", "a", "30%"],
    '[m @ input "p", 3  epochs]': ['[m @ input "p", 3  epochs]', 'm @ input "p"', "m", '"p"', "3  epochs"],
}  # fmt: skip


@pytest.mark.parametrize("text", SPANS)
def test_a_span_covers_its_expression(text: str) -> None:
    """Every node's span is exactly its text, wherever in the file it stands, comments and all."""
    for around in ("x = {}", "# one\nbrew 1\ny = 2  # ツ\nx = {}\nz = 3\n", "task a {{\r\n\tx = {}\r\n}}"):
        equation = next(n for n in read(around.format(text)).walk() if isinstance(n, t.Equation) and n.name == "x")
        assert [node.span.text for node in equation.value.walk()] == SPANS[text]


def test_spans_hold_where_other_statements_are_at_fault() -> None:
    """A file with a fault is read statement by statement; the places stay those of the file."""
    collector = Collector()
    spec = parse(Source("a = = 1\nb = f(c)\n"), collector)
    (equation,) = spec.statements
    assert isinstance(equation, t.Equation)
    assert (equation.span.text, equation.span.position) == ("b = f(c)", (2, 1))
    assert equation.value.span.position == (2, 5)
    assert [d.span.position for d in collector.sorted()] == [(1, 5)]


@pytest.mark.parametrize(
    "text",
    [
        "x = a.data + a.student.train",
        "x = f(task=1, data=2, via=linear, for=3, at=4, as=5, input=6)",
        "train { steps = 3; epochs = 4; via = 5; for = 6; at = 7; as = 8; input = 9 }",
        "x = teacher.logits -> student.logits via proj",
        "x = via via via",
        'cache at = at at "at"',
        "stage for for 3 epochs { }",
        "import as as as",
        "teacher teacher = hf(); student student = hf(); data data = f()",
        'tap input = input @ input "input"',
        "f(via, for, at) = via",
        "teachers = 1; trainer = 2; lets = 3",
        "x = steps * epochs",
    ],
)
def test_keywords_are_names_elsewhere(text: str) -> None:
    """Keywords bite only where a statement can begin, clause words only where their clause can stand."""
    assert read(text).statements != ()


def test_a_keyword_begins_its_own_statement() -> None:
    """The neighbour of the test above: where a statement begins, `data` is a keyword and no name."""
    collector = Collector()
    parse(Source("data = 2"), collector)
    assert [d.message for d in collector.sorted()] == ["expected a name after `data`"]


@pytest.mark.parametrize("text", ["", "\n", "  \t\n\r\n", "# only a comment", ";;", "# one\n;\n# two"])
def test_a_file_without_statements(text: str) -> None:
    """Empty files, blanks, comments and idle `;` hold no statement and no fault."""
    assert read(text).statements == ()


def test_the_last_line_needs_no_line_break() -> None:
    """A file without a final line break, and one with CRLF, read as the same."""
    assert read("a = 1\nb = 2") == read("a = 1\nb = 2\n") == read("a = 1\r\nb = 2\r\n")


def test_nodes_are_equal_by_what_they_say() -> None:
    """Blanks and places do not count, words do."""
    assert value("f(a,b)") == value("  f ( a , b )")
    assert value("f(a,b)") != value("f(b,a)")


def test_the_grammar_has_no_collisions() -> None:
    """Lark's strict mode refuses terminals that overlap and rules that conflict."""
    strict = Lark(grammar_text(), parser="lalr", lexer="contextual", strict=True, maybe_placeholders=True)
    assert strict.parse("a = 1").data == "start"


@settings(derandomize=True, deadline=None, database=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(specs())
def test_random_legal_specs_parse(written: Written) -> None:
    """Whatever the strategies write is legal, and spans nest: a child's lies within its parent's."""
    for node in read(written.text).walk():
        for child in node.children():
            assert node.span.start <= child.span.start <= child.span.end <= node.span.end


def test_a_fault_is_answered_at_once() -> None:
    """Sixty lines with one fault take well under half a second, once the grammar is built."""
    grammar()
    text = (
        MAIN
        + "".join(f"x{i} = mse(bert.hidden[{i}] -> tiny.hidden[{i}] via linear)\n" for i in range(40))
        + "y = = 3\n"
    )
    assert text.count("\n") == 60
    collector = Collector()
    before = time.perf_counter()
    parse(Source(text), collector)
    took = time.perf_counter() - before
    assert [d.span.position for d in collector.sorted()] == [(60, 5)]
    assert took < 0.5


def contents(table: Any) -> Any:
    """All that a table of lark says, in one order: each build numbers states, tokens and rules as its sets happen to lie.

    References are replaced by what they name; states are numbered as they are reached from the start, token by token.
    """
    data, memo = table

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            return resolved(memo[value["@"]]) if set(value) == {"@"} else {k: resolved(v) for k, v in value.items()}
        return [resolved(member) for member in value] if isinstance(value, list | tuple) else value

    parser = resolved(data)
    inner = parser["parser"]["parser"]
    tokens, states, starts = inner.pop("tokens"), inner.pop("states"), inner.pop("start_states")
    numbers = {state: name for name, state in starts.items()}
    queue, found = list(starts.values()), {}
    for state in queue:
        actions = sorted((tokens[token], action, target) for token, (action, target) in states[state].items())
        for _, action, target in actions:
            if action == 0 and target not in numbers:
                numbers[target] = len(numbers)
                queue.append(target)
        found[numbers[state]] = [(token, numbers[x] if action == 0 else x) for token, action, x in actions]
    assert len(found) == len(states)
    inner["end_states"] = {name: numbers[state] for name, state in inner["end_states"].items()}
    return parser, found, sorted(resolved(list(memo.values())), key=repr)


def test_the_table_is_that_of_the_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table that was worked out before says all that the grammar gives now; another grammar's is passed over."""
    remedy = "python -m brewgraph.syntax.grammar"
    held = grammars.held_table()
    assert held["digest"] == grammars.digest(), remedy
    assert contents(held["table"]) == contents(grammars.worked_out()), remedy
    loaded = grammar.__wrapped__()
    monkeypatch.setattr(grammars, "held_table", lambda: {"digest": "another"})
    anew = grammar.__wrapped__()
    text = "x = f(a -> b via linear)\n"
    assert anew.parse(text) == loaded.parse(text)


def test_a_table_that_differs_in_one_action_is_found() -> None:
    """What compares the tables sees a single action that leads elsewhere, and a single rule that is named otherwise."""
    whole = contents(grammars.held_table()["table"])
    data, memo = grammars.held_table()["table"]
    states = data["parser"]["parser"]["states"]
    state, token = next((s, t) for s, actions in states.items() for t, (action, _) in actions.items() if action == 1)
    states[state][token] = [1, next(m for m in ({"@": n} for n in memo) if m != states[state][token][1])]
    assert contents((data, memo)) != whole
    data, memo = grammars.held_table()["table"]
    rule = next(value for value in memo.values() if value["__type__"] == "Rule")
    rule["alias"] = "other"
    assert contents((data, memo)) != whole
