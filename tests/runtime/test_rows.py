"""What passes and split batches assume of operations: where gradients go, and that counts of the whole make parts add up."""

from __future__ import annotations

import pytest
import torch

from brewgraph.graph import nodes as n
from brewgraph.graph.container import node
from brewgraph.graph.optimize import reached
from tests.runtime.given import Case, batch_of, cases, draw, lay_out, operation_cases, said

CASES = cases()


def losses(case: Case) -> list[n.Loss]:
    """The losses of a case's graph."""
    graph = lay_out(case).program.graph
    return [x for key in graph if isinstance(x := node(graph, key), n.Loss)]


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
