"""What passes assume of operations: examples that do not look at each other, and where gradients go."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from brewgraph.graph import nodes as n
from brewgraph.graph.optimizing import reached
from brewgraph.graph.passes import node
from brewgraph.ops import OPERATIONS
from brewgraph.runtime.layouts import Padded
from tests.runtime.given import Case, batch_of, cases, draw, lay_out, operation_cases, own, said

CASES = cases()


def losses(case: Case) -> list[n.Loss]:
    """The losses of a case's graph."""
    graph = lay_out(case).program.graph
    return [x for key in graph if isinstance(x := node(graph, key), n.Loss)]


def test_which_operations_work_by_rows() -> None:
    """All but those that compare the examples of a batch, or make one number of it."""
    alone = {x.name for x in own(OPERATIONS) if not x.by_rows}
    assert alone == {"rkd_distance", "rkd_angle", "infonce", "emd"}


@pytest.mark.parametrize("case", list(operation_cases()), ids=str)
def test_examples_of_operations_by_rows_do_not_look_at_each_other(case: Case) -> None:
    """Two batches behind each other give what each gives alone, and so do their gradients."""
    (loss,) = losses(case)
    operation = OPERATIONS[loss.operation]
    if not operation.by_rows:
        return
    bench = lay_out(case)
    batches = [batch_of(case), batch_of(case)]
    mask = batches[0]["attention_mask"].bool()
    layout = Padded(mask, "tokens")
    torch.manual_seed(0)
    sides = []
    for i in range(2):
        values = draw(bench, batches[i])
        sides.append(
            [_side(loss.kinds[0], values, "big", batches[i], i), _side(loss.kinds[1], values, "tiny", batches[i], i)]
        )
    function, words = operation.maths(*loss.kinds), dict(loss.words)
    more = {"layout": layout} if operation.needs_layout else {}
    apart = [function(*pair, **words, **more) for pair in sides]
    more = {"layout": layout.repeated(2)} if operation.needs_layout else {}
    ones, others = ([pair[k] for pair in sides] for k in (0, 1))
    together = function(_joined(ones), _joined(others), **words, **more)
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-12, atol=1e-12, msg=said(str(case)))


def _side(kind: str, values: Any, model: str, batch: Any, seed: int) -> Any:
    """A random side of a kind, another one for each batch."""
    if kind in ("labels", "targets"):
        labels = batch.get("labels", batch.get("start"))
        return labels.double() if kind == "targets" else labels
    found = [x for (of, _), x in sorted(values.items()) if of == model]
    moved = [
        x + seed * torch.rand_like(x) if kind not in ("attention", "places", "probabilities") else x for x in found
    ]
    if kind in ("places", "probabilities"):
        moved = [x.softmax(-1) for x in moved]
    if kind == "vector":
        moved = [x[:, 0] if x.dim() == 3 else x for x in moved]
    return tuple(moved * 2)[:2] if kind.startswith("(") else moved[0]


def _joined(sides: list[Any]) -> Any:
    return tuple(map(torch.cat, zip(*sides, strict=True))) if isinstance(sides[0], tuple) else torch.cat(sides)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_go_where_the_graph_says(case: Case) -> None:
    """A feature of the student gets a gradient exactly where `reached` names it: what passes leave out rests on that."""
    bench = lay_out(case)
    batch = batch_of(case)
    _, gradients = bench.gradients(draw(bench, batch), batch)
    found = {name for model, name in gradients if model == "tiny"}
    assert found == {str(feature) for feature in reached(bench.program.graph).features}


@pytest.mark.parametrize("case", list(operation_cases()), ids=str)
def test_a_batch_in_pieces(case: Case) -> None:
    """Loss and gradients of 8 examples are those of 4 pieces of 2 with the counts of the whole, for every unit but
    `batch`: a loss of that unit is a value of each piece, which W212 says.
    """
    bench, batch = lay_out(case), batch_of(case, lengths=(3, 1, 2, 3, 2, 1, 1, 3))
    values = draw(bench, batch)
    loss, gradients = bench.gradients(values, batch)
    parts = [slice(i, i + 2) for i in range(0, 8, 2)]
    batches = [{name: x[part] for name, x in batch.items()} for part in parts]
    counts = torch.stack([bench.program.count(bench.encoded({}, own_batch)) for own_batch in batches]).sum(0)
    found = []
    for part, own_batch in zip(parts, batches, strict=True):
        own_values = {key: x[part] for key, x in values.items()}
        found.append(bench.gradients(own_values, own_batch, counts))
    whole = sum(x for x, _ in found)
    (unit,) = {x.unit for x in losses(case)}
    if unit == "batch":
        assert abs(float(whole - loss)) > 1e-6
        return
    torch.testing.assert_close(whole, loss, rtol=1e-6, atol=1e-9, msg=said(str(case)))
    for key, gradient in gradients.items():
        joined = torch.cat([own[key] for _, own in found])
        torch.testing.assert_close(joined, gradient, rtol=1e-6, atol=1e-9, msg=said(f"{case} {key}"))
