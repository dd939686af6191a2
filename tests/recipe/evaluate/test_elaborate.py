"""`cache`: what may be kept, and what each refusal says."""

from __future__ import annotations

import pytest

from brewgraph.recipe.values import Cached, Group
from tests.recipe.specs import fault, known, names

AUGMENTED = 'data e = files(train="a.jsonl", augment=[deleting(p=10%)])\n'


def test_a_feature() -> None:
    """A teacher's feature is a value like any other, and says where it is kept."""
    found = names('cache soft = big.logits at "store"\nx = kd(soft -> tiny.logits)', "loss = x\n")
    cached = found.equations["x"].source
    assert isinstance(cached, Cached)
    assert (cached.kind, cached.name, cached.path) == ("logits", "soft", "store")


def test_a_list_is_kept_member_by_member() -> None:
    """Also where the list is as long as the model is deep; its axis stays."""
    body = 'cache h = big.hidden[0, 4] at "store"\nx = mse(h -> tiny.hidden[0, 1] via linear)'
    found = known(body, "loss = sum(x)\n").equations["x"]
    assert isinstance(found, Group)
    assert [type(member.source) for member in found] == [Cached, Cached]


def test_what_is_made_of_features() -> None:
    """Transforms, means over teachers and unreduced losses between teachers are values too."""
    body = (
        'teacher other = hf("other")\ncache m = mean([big.logits, other.logits]) at "store"\nx = kd(m -> tiny.logits)'
    )
    assert names(body, "loss = x\n")


def test_params_in_the_path() -> None:
    """A path is a string as any other."""
    body = 'param where = "here"\ncache c = big.logits at "{where}/c"\nx = kd(c -> tiny.logits)'
    found = names(body, "loss = x\n", where="there").equations["x"].source
    assert found.path == "there/c"


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("tiny.logits", "B240", "`tiny` is trained"),
        ("follower.logits", "B240", "`follower` follows the student"),
        ("big.hidden[1] via linear(8 -> 4)", "B240", "a projection is trained"),
        ("ramp(1 -> 0) * big.logits", "B240", "a schedule changes"),
        ("d.labels", "B240", "no model computes this"),
        ("3", "B202", "a cache keeps a value, got a number"),
        ("big", "B202", "got a model"),
        ("big.hidden", "B202", "a cache needs the layers of a row"),
        ("kd(big.logits -> other.logits)", "B241", "depends on the rest of its batch"),
        ('kd(big.logits -> other.logits, T=flsw(4), reduce="none")', "B241", "`flsw` uses all of them"),
        ('batch_mean(kd(big.logits -> other.logits, reduce="none"))', "B241", "depends on the rest"),
        ("token_mean(big.hidden[1], mask=none)", "B241", "`mask=none`"),
        ("big(e).logits", "B242", "`augment` changes the texts of `e`"),
        ("big(m).hidden[1]", "B242", "the words of `m` that are masked change every epoch"),
    ],
)
def test_what_cannot_be_kept(value: str, code: str, message: str) -> None:
    """Each refusal has its code, the value as its place, and a remedy."""
    more = 'teacher other = hf("other")\nteacher follower = ema(tiny)\n'
    data = 'data m = text(train="a.txt", mask=15%)\n'
    for model in ("big", "tiny", "other", "follower"):
        value = value.replace(f"{model}.", f"{model}(d).")
    lines = f'{AUGMENTED}{data}{more}cache c = {value} at "x"'
    found = fault(lines, "loss = ce(d.labels -> tiny(d).logits)\n")
    assert found.code == code
    assert message in found.message
    assert found.help
    assert found.span.position == (8, 11)
