"""The model card of a run: its head as the hub reads it, its snippet as it runs, licences, carbon, and hostile names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from brewgraph.running.finished import open_run
from brewgraph.sharing import card as module
from brewgraph.sharing.card import block, card_of, code, escaped, loading, markdown_table, origin, read_emissions
from tests.cli.tiny import command


@pytest.fixture(scope="module")
def text(finished: Path) -> str:
    return card_of(open_run(finished), "me/tiny")


def test_the_head_is_what_the_hub_reads(text: str) -> None:
    """Library, task, tags and each score of the student, with its split."""
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.tags) == (
        "transformers", "text-classification", ["brewgraph", "knowledge-distillation"],
    )  # fmt: skip
    results = data.eval_results
    assert results is not None
    assert [(x.metric_type, x.dataset_split, x.dataset_type) for x in results] == [
        ("accuracy", "dev", "local"), ("macro_f1", "dev", "local"),
    ]  # fmt: skip
    assert results[0].metric_value == 0.5
    assert data.model_name == "me/tiny"
    assert "license" not in data.to_dict()


def test_the_text_tells_the_run(text: str, finished: Path) -> None:
    """What it is, table, equation, command, versions and hash; no folder of this machine."""
    assert "`small` is distilled from `big` (trained by the spec `teacher.brew`)." in text
    assert "| model | accuracy | macro F1 | parameters | size | sentences/s |" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith(("| big", "| small"))] == [
        "big", "small", "small",
    ]  # fmt: skip
    assert "kd(big.logits -> small.logits, T=2) + 0.5 * ce(rows.labels -> small.logits)" in text
    assert "brewgraph run student.brew --set=T=2" in text
    assert (finished / "spec.brew").read_text().strip() in text
    assert f"- hash: `{finished.name.rpartition('-')[2]}" in text
    assert re.search(r"^- torch: `2\.", text, re.MULTILINE)
    assert re.search(r"^- wall time: \d+ s$", text, re.MULTILINE)
    assert re.search(r"^- hardware: CPU, \d+ threads?$", text, re.MULTILINE)
    assert "| data `rows` | `train.jsonl, dev.jsonl` (local) | not stated |" in text
    assert "## Carbon" not in text
    assert str(finished.parent.parent) not in text


ON_THE_HUB = """\
brew 1
teacher big = hf("you/big")
student small = hf("me/base", num_hidden_layers=1)
data rows = hub("you/rows", "part", text=[text], label=label)
loss = kd(big.logits -> small.logits)
"""


def test_models_and_data_of_the_hub_are_linked(finished: Path, tmp_path: Path) -> None:
    """In the head, too; none of them can be reached here."""
    run = tmp_path / finished.name
    shutil.copytree(finished, run)
    (run / "spec.brew").write_text(ON_THE_HUB)
    resolved = json.loads((run / "resolved.json").read_text())
    (run / "resolved.json").write_text(json.dumps({**resolved, "params": {}, "folder": str(tmp_path)}))
    text = card_of(open_run(run), "me/tiny")
    data = ModelCard(text).data
    assert (data.base_model, data.datasets) == (["me/base", "you/big"], ["you/rows"])
    result = (data.eval_results or [])[0]
    assert (result.dataset_type, result.dataset_config, result.dataset_split) == ("you/rows", "part", "dev")
    assert "`small` is distilled from [you/big](https://huggingface.co/you/big)." in text
    assert "Its weights began as those of [me/base](https://huggingface.co/me/base)." in text
    assert "| data `rows` | [you/rows](https://huggingface.co/datasets/you/rows), `part` | not stated |" in text
    assert text.partition("## Loss\n\n")[2].startswith("```\nkd(big.logits -> small.logits)\n```\n")


def test_the_snippet_runs(finished: Path) -> None:
    """In plain transformers, on the folder that it names."""
    text = card_of(open_run(finished), str(finished / "student"))
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    scope: dict[str, Any] = {}
    exec(snippet, scope)
    assert scope["output"].logits.shape == (1, 2)


def test_the_snippet_of_a_student_with_heads(tmp_path: Path) -> None:
    """A folder for each; a model without a configuration is code, and needs words."""
    for head, architecture in (("ner", "BertForTokenClassification"), ("top-ic", "BertForSequenceClassification")):
        (tmp_path / head).mkdir()
        (tmp_path / head / "config.json").write_text(f'{{"architectures": ["{architecture}"]}}')
    assert "\n".join(loading("me/x", tmp_path, ["ner", "top-ic"])).splitlines() == [
        "```python",
        "from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification",
        "",
        "ner = AutoModelForTokenClassification.from_pretrained('me/x', subfolder='ner')",
        "",
        "top_ic = AutoModelForSequenceClassification.from_pretrained('me/x', subfolder='top-ic')",
        "```",
    ]
    assert list(loading("me/x", tmp_path / "none", [""])) == [
        "Its weights are in `model.safetensors`; the Python code of the model is not part of a run."
    ]


def test_carbon_is_what_codecarbon_wrote(finished: Path, tmp_path: Path) -> None:
    """Kilograms there are grams on the hub; a file that is none of codecarbon's is left out."""
    shutil.copytree(finished, tmp_path / "x-1")
    rows = "timestamp,emissions,energy_consumed,country_name\na,0.0015,0.004,Norway\nb,0.0005,0.002,Norway\n"
    (tmp_path / "x-1" / "emissions.csv").write_text(rows)
    text = card_of(open_run(tmp_path / "x-1"), "x")
    assert ModelCard(text).data.to_dict()["co2_eq_emissions"] == {"emissions": 2.0, "source": "codecarbon"}
    assert text.endswith(
        "## Carbon\n\n2.0000 g of CO₂ equivalents from 0.0060 kWh in Norway, measured by codecarbon.\n"
    )
    for content in ("", "a,b\n1,2\n", "emissions\nmuch\n"):
        (tmp_path / "bad.csv").write_text(content)
        assert read_emissions(tmp_path / "bad.csv") is None


def test_licences_are_those_of_the_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder, of the cache of the hub; a bad card states nothing; a name of nothing is local."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "README.md").write_text("---\nlicense: [mit, cc-by-4.0]\n---\n")
    of = origin("rows", tmp_path, "dataset")
    assert (of.hub, of.local, of.licence, of.link("dataset")) == ("", "rows", "mit, cc-by-4.0", "`rows` (local)")
    cached = tmp_path / "card.md"
    cached.write_text("---\nlicense: apache-2.0\n---\n")
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda *_, **__: str(cached))
    of = origin("you/rows_2", tmp_path, "dataset")
    assert (of.licence, of.link("dataset")) == (
        "apache-2.0", r"[you/rows\_2](https://huggingface.co/datasets/you/rows_2)",
    )  # fmt: skip
    cached.write_text("---\nlicense: [\n---\n")
    assert origin("you/rows", tmp_path, "model").licence == ""
    assert origin("bert", tmp_path, "model").hub == ""
    for name in ("~no-such-user/bert", "x" * 5000 + "/bert"):
        assert origin(name, tmp_path, "model").link("model") == "`bert` (local)"
    assert origin("/data/secret/bert", tmp_path, "model").link("model") == "`bert` (local)"


def test_texts_are_shown_and_not_obeyed() -> None:
    """Markdown, HTML and tables in names; fences in specs."""
    assert escaped("a|b <img src=x> [x](y)\n# _z_") == r"a\|b &lt;img src=x&gt; \[x\](y) \# \_z\_"
    assert escaped("a\x1b[31mb\0\ud800\u202ec") == r"a \[31mb c"
    assert (code("a`b"), code("a|b"), code("x\ny")) == ("`` a`b ``", r"`a\|b`", "`x y`")
    assert block("x\n```\ny") == "````\nx\n```\ny\n````"
    assert list(markdown_table([("model", "a|b"), ("x\ny", "1")])) == [
        r"| model | a\|b |",
        "|:---|---:|",
        "| x y | 1 |",
    ]


def test_the_command_prints_or_writes_the_card(finished: Path, tmp_path: Path) -> None:
    """A card that somebody changed is not replaced unasked."""
    shutil.copytree(finished, tmp_path / finished.name)
    run = tmp_path / finished.name
    printed = command("card", str(run), "--name", "me/tiny")
    assert printed.stdout.startswith("---\n")
    assert "# me/tiny\n" in printed.stdout
    written = command("card", str(run), "--write")
    path = run / "student" / "README.md"
    assert (written.exit_code, Path(written.stdout.strip()).resolve()) == (0, path.resolve())
    assert f"# {run.name}/student\n" in path.read_text()
    path.write_text("mine")
    assert command("card", str(run), "--write").exit_code == 2
    assert path.read_text() == "mine"
    assert command("card", str(run), "--write", "--force").exit_code == 0
    assert path.read_text() != "mine"
