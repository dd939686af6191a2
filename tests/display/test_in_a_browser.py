"""Pictures as a browser lays them out at 1280 x 800: no label on another, none cut off, none below 10 pixels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from brewgraph.display.picture import picture
from brewgraph.display.render import Shown, write_svg
from tests.graph.graphs import graph

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine to lay a page out"),
]

HEAD = """\
teacher bert = hf("bert")
teacher other = hf("other")
student tiny = hf(model_type="bert")
data mnli = files(train="train.jsonl")
"""
SPECS = {
    "four terms": "loss = 0.7 * kd(bert.logits -> tiny.logits, T=3) + 0.3 * ce(mnli.labels -> tiny.logits)"
    " + sum(mse(bert.hidden[0, 12] -> tiny.hidden[0, 3] via linear))",
    "fourteen terms": "let map = [0, 4, 8, 12] -> [0, 1, 2, 3]\nsoft = ce(bert.logits -> tiny.logits, T=8)\n"
    "hidden = mse(bert.hidden[map] -> tiny.hidden[map] via linear, mask=none)\n"
    "gram = nst(bert.hidden[map] -> tiny.hidden[map], mask=none)\n"
    "heads = mse(bert.attention[3, 7, 11] -> tiny.attention[0, 1, 2])\nhard = ce(mnli.labels -> tiny.logits)\n"
    "near = cos(other.hidden[12] -> tiny.hidden[3] via linear)\n"
    "loss = soft + sum(hidden) + 0.5 * sum(gram) + ramp(1 -> 0) * sum(heads) + hard + near",
    "trusted teachers": "let teachers = [bert, other]\n"
    'doubt = ce(mnli.labels -> teachers.logits, reduce="none")\ntrust = softmax(-doubt, over=teachers)\n'
    'apart = kd(teachers.logits -> tiny.logits, T=4, reduce="none")\n'
    "soft = batch_mean(sum(trust * apart, over=teachers))\nhard = ce(mnli.labels -> tiny.logits)\nloss = soft + hard",
}
MEASURE = """
<script>
addEventListener("load", () => {
  const seen = [...document.querySelectorAll("SELECTOR")].filter(e => e.getBoundingClientRect().width > 0);
  const found = seen.map(e => {
    const own = e.getBoundingClientRect(), card = e.closest(".card").querySelector("rect").getBoundingClientRect();
    const scale = e.getCTM().a, box = r => [r.left, r.top, r.right, r.bottom];
    return {text: e.textContent, box: box(own), card: box(card), size: parseFloat(getComputedStyle(e).fontSize) * scale};
  });
  const out = document.createElement("pre");
  out.id = "measured"; out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""


def laid_out(page: str, folder: Path, selector: str) -> list[dict]:
    """The labels of a page: text, box, the box of its card (left, top, right, bottom), size of its letters in pixels."""
    file = folder / "page.html"
    measure = MEASURE.replace("SELECTOR", selector)
    file.write_text(page.replace("</body>", f"{measure}</body>") if "</body>" in page else page + measure)
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}",
            "--window-size=1280,800", "--hide-scrollbars", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    measured = re.search(r'<pre id="measured">(.*?)</pre>', done.stdout, re.S)
    assert measured, done.stderr[-400:]
    text = measured[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
    found: list[dict] = json.loads(text)
    return found


def check_labels(labels: list[dict], right: float, bottom: float, *, whole: bool) -> None:
    """Large enough, each in its card, no two on top of each other; where `whole`, all inside the window."""
    assert len(labels) > 8
    for label in labels:
        assert label["size"] >= 10, label
        (left, top, to, down), card = label["box"], label["card"]
        assert card[0] <= left, label
        assert to <= card[2], label
        assert card[1] <= top + 1, label
        assert down <= card[3] + 1, label
        if whole:
            assert left >= 0, label
            assert top >= 0, label
            assert to <= right, label
            assert down <= bottom, label
    for i, one in enumerate(labels):
        for other in labels[i + 1 :]:
            a, b = one["box"], other["box"]
            # the boxes of letters below each other share the room for their tails
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 3 or b[3] <= a[1] + 3
            assert apart, (one, other)


@pytest.mark.parametrize("name", SPECS)
def test_the_page(name: str, tmp_path: Path) -> None:
    """Terms are whole in the window, beside the panel; nodes are readable where they begin."""
    page = Shown({"": graph(HEAD + SPECS[name])}, "mnli.brew", "0123456789abcdef", {}).write("html")
    assert not re.search(r'(?:src|href)="?http|@import|url\(http', page), "the page needs nothing from elsewhere"
    labels = laid_out(page, tmp_path, "g.picture:not(.hidden) text")
    check_labels(labels, 940, 800, whole=True)
    nodes = page.replace('grain = "terms", chosen', 'grain = "nodes", chosen')
    check_labels(laid_out(nodes, tmp_path, "g.picture:not(.hidden) text"), 940, 800, whole=False)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("grain", ["terms", "nodes"])
def test_the_picture(name: str, grain: str, tmp_path: Path) -> None:
    """In its own size nothing leaves its card, and cards stay inside."""
    drawn = write_svg(picture(graph(HEAD + SPECS[name]), grain))
    width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', drawn)[0])
    check_labels(laid_out(f'<body style="margin:0">{drawn}</body>', tmp_path, "text"), width, height, whole=True)
