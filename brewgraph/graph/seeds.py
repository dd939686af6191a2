"""Seeds of the initial weights of projections: they follow from what is mapped to what, never from names or places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from brewgraph.digest import digest
from brewgraph.recipe import values as v
from brewgraph.recipe.numbers import COMMUTES
from brewgraph.recipe.recipe import Recipe


def projection_seeds(recipe: Recipe, identities: Mapping[str, str]) -> dict[str, str]:
    """For each projection, by its site, a digest of what it maps to what and its ordinal among identical projections.

    So initial weights depend neither on names nor on the order of terms. Projections that map the same to the same are
    ordered by the rest of their terms, and only where that is equal too by their place in the text.
    """
    uses: dict[str, list[str]] = defaultdict(list)
    rest: dict[str, list[str]] = defaultdict(list)
    values = list({id(x): x for value in recipe.values() for x in v.walk(value)}.values())  # each once, in text order
    for x in (x for x in values if isinstance(x, v.Apply)):
        for side, partner in ((x.source, x.target), (x.target, x.source)):
            for part in v.walk(side):
                if isinstance(part, v.Project):
                    use = digest(x.operation, _digest(part.value, identities), _digest(partner, identities))
                    uses[part.projector.site].append(use)
                    rest[part.projector.site].append(_rest(x, part.projector, identities))
    for part in (x for x in values if isinstance(x, v.Project)):
        # those that no operation compares
        uses.setdefault(part.projector.site, [digest("alone", _digest(part.value, identities))])
    seen: dict[str, int] = defaultdict(int)
    seeds: dict[str, str] = {}
    for site in sorted(uses, key=lambda site: sorted(rest[site])):
        base = digest(sorted(set(uses[site])))
        seeds[site] = digest(base, seen[base])
        seen[base] += 1
    return seeds


def _rest(x: v.Apply, projector: v.Projector, identities: Mapping[str, str]) -> str:
    """The rest of a term with a projection."""
    mask = _digest(x.mask, identities) if isinstance(x.mask, v.Column) else x.mask
    options = [(name, repr(value)) for name, value in x.options]
    return digest(projector.activation, projector.out, projector.options, options, mask, x.reduced)


def _digest(x: v.Value, identities: Mapping[str, str]) -> str:
    """What a value is computed from, without names."""
    match x:
        case v.Take():
            return digest("take", identities[x.model], identities[x.data], repr(x.feature), x.passing)
        case v.Cached():
            return _digest(x.value, identities)
        case v.Column():
            return digest("column", identities[x.data], x.column)
        case v.Project():
            return digest("project", x.projector.activation, _digest(x.value, identities))
        case v.Combine():
            parts = [_digest(o, identities) for o in x.operands]
            return digest(x.operator, x.position, sorted(parts) if x.operator in COMMUTES else parts)
        case v.Number():
            return digest(x.value)
        case v.Scheduled():
            return digest(x.name, [repr(a) for a in x.arguments])
        case v.Apply():
            return digest(x.operation, _digest(x.source, identities), _digest(x.target, identities))
        case v.Bundle():
            return digest("bundle", [_digest(i, identities) for i in x.items])
        case v.Transform():
            return digest(x.name, [_digest(i, identities) for i in x.values])
    raise AssertionError(type(x).__name__)
