"""Faults of models that do not fit each other, or what is taken from them: taps, axes, classes, vocabularies, inputs.

The form is that of `meaning`: all of them are found by the whole check, before a weight is loaded.
"""

from __future__ import annotations

from tests.faults.meaning import Fault
from tests.faults.world import HEAD

_SMALL = "num_attention_heads=2, intermediate_size=8, max_position_embeddings=32, vocab_size=60"
_T5 = 'teacher t5 = hf(model_type="t5", d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2, vocab_size=60'
ENCODER = f'{HEAD}{_T5}, task="token-classification")\n'
"""A T5 of which the encoder alone runs."""
WHOLE = f"{HEAD}{_T5})\n"
"""A T5 with its decoder."""
XLNET = f'{HEAD}teacher xl = hf(model_type="xlnet", d_model=8, d_inner=8, n_layer=2, n_head=2, vocab_size=60)\n'
ALBERT = f'{HEAD}teacher al = hf(model_type="albert", embedding_size=8, hidden_size=8, num_hidden_layers=3, {_SMALL})\n'
"""A teacher whose one layer runs three times."""
ROBERTA = HEAD[: HEAD.index("data d")].replace('tiny = hf(model_type="bert"', 'tiny = hf(model_type="roberta"')
"""Models alone, of which the student counts its positions from behind its padding."""
SHORT = HEAD[: HEAD.index("data d")].replace(
    "max_position_embeddings=32, hidden_size=16", "max_position_embeddings=20, hidden_size=16"
)
"""Models alone, the teacher with fewer positions."""
BOTH = HEAD.replace("hidden_size=16,", 'hidden_size=16, labels=["n", "y"],') + (
    f'teacher other = hf(model_type="bert", hidden_size=16, labels=["no", "yes"], {_SMALL})\n'
)
"""Two teachers whose classes have other names."""
TOKENS = (
    "".join(
        f'{role} {name} = hf(model_type="bert", hidden_size=8, num_hidden_layers=1, num_attention_heads=2, '
        f'intermediate_size=8, tokenizer="{tokens}")\n'
        for role, name, tokens in (("teacher", "big", "one"), ("teacher", "other", "two"), ("student", "tiny", "one"))
    )
    + 'data d = files(train="train.jsonl", batch=4, max_length=16)\n'
)
"""Two teachers that cut texts into other tokens."""
GPT = 'hf(model_type="gpt2", n_embd=8, n_layer=1, n_head=2, n_positions=32, task="causal-lm"'
GUESSERS = (
    f'teacher big = {GPT}, tokenizer="one", vocab_size=64)\nteacher other = {GPT}, tokenizer="two", vocab_size=64)\n'
    f'student tiny = {GPT}, tokenizer="one", vocab_size=60)\ndata d = files(train="train.jsonl", batch=4, max_length=16)\n'
)
"""Language models: two of one tokenizer, one of another."""

AGREEMENT = [
    Fault("module that is never called",
          "tap t = big @ \"encoder.layer.0.attention.self.dropout\"\nx = nst(t -> tiny.hidden[0])",
          "tap t = big @ \"encoder.layer.0.attention.output.dropout\"\nx = nst(t -> tiny.hidden[0])",
          "B336", (4, 9), "big @ \"encoder.layer.0.attention.self.dropout\"",
          "`encoder.layer.0.attention.self.dropout` is never called in a forward of BertModel, so there is nothing to tap",
          "tap the module around it: \"encoder.layer.0.attention.self\"; `brewgraph taps` lists the output of each module"),
    Fault("module that a forward passes by",
          "tap t = xl @ \"layer.1.dropout\"\nx = nst(t -> tiny.hidden[0])",
          "x = nst(xl.hidden[1] -> tiny.hidden[0])",
          "B336", (5, 9), "xl @ \"layer.1.dropout\"",
          "`layer.1.dropout` is never called in a forward of XLNetModel, so there is nothing to tap",
          "tap the module around it: \"layer.1\"; `brewgraph taps` lists the output of each module", head=XLNET),
    Fault("call that there is none of",
          "tap t = al @ \"encoder.albert_layer_groups.0\"\nx = nst(t[3] -> tiny.hidden[0])",
          "tap t = al @ \"encoder.albert_layer_groups.0\"\nx = nst(t[2] -> tiny.hidden[0])",
          "B206", (6, 11), "3",
          "3 is out of range",
          "the list has 3 members, 0 to 2", head=ALBERT),
    Fault("shared module as a single value",
          "tap t = al @ \"encoder.albert_layer_groups.0\"\nx = nst(t -> tiny.hidden[0])\nloss = x + ce(d.labels -> tiny.logits)",
          "tap t = al @ \"encoder.albert_layer_groups.0\"\nx = nst(t -> tiny.hidden[0])\nloss = sum(x) + ce(d.labels -> tiny.logits)",
          "B213", (7, 1), "loss",
          "the loss is a list, not one number",
          "write `sum(…)` or `mean(…)` around the list", head=ALBERT),
    Fault("element that is None",
          "tap t = big @ \"encoder.layer.0.attention.self\"[1]\nx = nst(t -> tiny.hidden[0])",
          "tap t = big @ \"encoder.layer.0.attention.self\"[0]\nx = nst(t -> tiny.hidden[0])",
          "B305", (4, 9), "big @ \"encoder.layer.0.attention.self\"",
          "the output of `encoder.layer.0.attention.self` is None at [1]: [0] (batch, length, 16), [1] None",
          "attention modules return no weights unless they run eagerly: use the feature `attention[i]`; or add [0] to the path"),
    Fault("element out of range",
          "tap t = big @ \"encoder.layer.0.attention.self\"[2]\nx = nst(t -> tiny.hidden[0])",
          "tap t = big @ \"encoder.layer.0.attention.self\"\nx = nst(t -> tiny.hidden[0])",
          "B305", (4, 9), "big @ \"encoder.layer.0.attention.self\"",
          "the output of `encoder.layer.0.attention.self` has no element [2]: [0] (batch, length, 16), [1] None",
          "add [0] to the path"),
    Fault("element where there is one tensor",
          "tap t = big @ \"encoder.layer.0\"[0]\nx = nst(t -> tiny.hidden[0])",
          "tap t = big @ \"encoder.layer.0\"\nx = nst(t -> tiny.hidden[0])",
          "B305", (4, 9), "big @ \"encoder.layer.0\"",
          "the output of `encoder.layer.0` is one tensor (batch, length, 16)",
          "remove [0]"),
    Fault("several tensors in a tuple",
          "tap t = t5 @ \"encoder.block.0\"\nx = nst(t -> tiny.hidden[0])",
          "tap t = t5 @ \"encoder.block.0\"[0]\nx = nst(t -> tiny.hidden[0])",
          "B305", (5, 9), "t5 @ \"encoder.block.0\"",
          "the output of `transformer.encoder.block.0` holds several tensors: [0] (batch, length, 8), [1] (1, 2, length, length), [2] None",
          "add [0] or [1] to the path", head=ENCODER),
    Fault("batch that is not first",
          "tap t = xl @ \"layer.0\"[0]\nx = nst(t -> tiny.hidden[0])",
          "x = nst(xl.hidden[1] -> tiny.hidden[0])",
          "B221", (5, 9), "xl @ \"layer.0\"",
          "no loss compares values of the shape (length, batch, 8): its first axis is not the batch",
          "the named features have it first: `xl.hidden[1]`", head=XLNET),
    Fault("value without a batch",
          "tap t = big @ \"embeddings.position_embeddings\"\nx = nst(t -> tiny.hidden[0])",
          "tap t = big @ \"embeddings.word_embeddings\"\nx = nst(t -> tiny.hidden[0])",
          "B221", (4, 9), "big @ \"embeddings.position_embeddings\"",
          "no loss compares values of the shape (1, length, 16): its first axis is not the batch",
          "the named features have it first: `big.hidden[1]`"),
    Fault("rows of two stacks",
          "x = nst(t5.hidden[0] -> tiny.hidden[0])",
          "",
          "B304", (5, 9), "t5.hidden",
          "T5Model has no `hidden`: it has 2 stacks of layers (`encoder` and `decoder`)",
          "tap the layers of one of them: `tap t = model @ \"encoder.block.*\"[0]` or `tap t = model @ \"decoder.block.*\"[0]`", head=WHOLE),
    Fault("argument that nobody gives",
          "tap t = t5 @ \"encoder.block.*\"[0]\nx = nst(t[0] -> tiny.hidden[0])",
          "",
          "B337", (4, 14), "hf(model_type=\"t5\", d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2, vocab_size=60)",
          "the forward of `t5` needs `decoder_input_ids`, which neither its tokenizer nor `d` supplies",
          "name a column: inputs={decoder_input_ids: column}; or use its encoder alone: task=\"token-classification\"", head=WHOLE),
    Fault("argument that the forward lacks",
          "teacher b = hf(model_type=\"bert\", hidden_size=8, num_attention_heads=2, vocab_size=60, inputs={token_typ_ids: number})\nx = nst(b.hidden[0] -> tiny.hidden[0])",
          "teacher b = hf(model_type=\"bert\", hidden_size=8, num_attention_heads=2, vocab_size=60, inputs={token_type_ids: number})\nx = nst(b.hidden[0] -> tiny.hidden[0])",
          "B338", (4, 95), "{token_typ_ids: number}",
          "the forward of `b` takes no `token_typ_ids`",
          "did you mean `token_type_ids`?"),
    Fault("positions behind the padding",
          "data d = files(train=\"train.jsonl\", batch=4, max_length=32)",
          "data d = files(train=\"train.jsonl\", batch=4, max_length=31)",
          "B320", (3, 57), "32",
          "`tiny` has 31 positions, but examples have up to 32 tokens",
          "set max_length=31, or use a model with more positions", head=ROBERTA),
    Fault("positions of a teacher",
          "data d = files(train=\"train.jsonl\", batch=4, max_length=24)\nloss = kd(big.logits -> tiny.logits)",
          "data d = files(train=\"train.jsonl\", batch=4, max_length=20)\nloss = kd(big.logits -> tiny.logits)",
          "B320", (3, 57), "24",
          "`big` has 20 positions, but examples have up to 24 tokens",
          "set max_length=20, or use a model with more positions", head=SHORT),
    Fault("averaged classes of other names",
          "x = kd((big.logits + other.logits) / 2 -> tiny.logits)",
          "x = kd(big.logits -> tiny.logits) + kd(other.logits -> tiny.logits)",
          "B222", (5, 9), "big.logits + other.logits",
          "the logits of `big` and `other` are combined, but their classes differ",
          "`big`: n, y; `other`: no, yes: give both the same names: labels=[…]", head=BOTH),
    Fault("averaged teachers in a list of other names",
          "let all = [big, other]\nx = kd(mean(all.logits) -> tiny.logits)",
          "let all = [big, other]\nx = mean(kd(all.logits -> tiny.logits))",
          "B222", (6, 8), "mean(all.logits)",
          "the logits of `big` and `other` are combined, but their classes differ",
          "`big`: n, y; `other`: no, yes: give both the same names: labels=[…]", head=BOTH),
    Fault("joined tokens of two tokenizers",
          "x = mse((big.hidden[0] + other.hidden[0]) / 2 -> tiny.hidden[0])",
          "x = mse((words(big.hidden[0]) + words(other.hidden[0])) / 2 -> words(tiny.hidden[0]))",
          "B214", (5, 26), "other.hidden[0]",
          "`big` and `other` cut the text into different tokens",
          "join words: `words(big.hidden[0])`, `words(other.hidden[0])`; or give both one tokenizer", head=TOKENS),
    Fault("logits over two vocabularies",
          "loss = kd(other.logits -> tiny.logits)",
          "loss = kd(big.logits -> tiny.logits)",
          "B223", (5, 11), "other.logits",
          "`tiny` and `other` have different tokenizers: one token id stands for two tokens",
          "give both one tokenizer: tokenizer=other; or match hidden states, `words(…)` on both sides", head=GUESSERS),
    Fault("averaged logits over two vocabularies",
          "loss = kd((big.logits + other.logits) / 2 -> tiny.logits)",
          "loss = kd(big.logits -> tiny.logits)",
          "B223", (5, 25), "other.logits",
          "`tiny` and `other` have different tokenizers: one token id stands for two tokens",
          "give both one tokenizer: tokenizer=other; or match hidden states, `words(…)` on both sides", head=GUESSERS),
    Fault("words of two vocabularies",
          "loss = kd(words(other.logits) -> words(tiny.logits))",
          "loss = kd(words(big.logits) -> words(tiny.logits))",
          "B223", (5, 17), "other.logits",
          "`tiny` and `other` have different tokenizers: one token id stands for two tokens",
          "give both one tokenizer: tokenizer=other; or match hidden states, `words(…)` on both sides", head=GUESSERS),
    Fault("vocabulary too small for its tokenizer",
          "teacher b = hf(model_type=\"bert\", hidden_size=8, num_attention_heads=2, tokenizer=\"one\", vocab_size=9)",
          "teacher b = hf(model_type=\"bert\", hidden_size=8, num_attention_heads=2, tokenizer=\"one\", vocab_size=60)",
          "B313", (4, 101), "9",
          "a vocabulary of 9 has no room for the 36 tokens of its tokenizer",
          "leave it out, or make it larger"),
]  # fmt: skip
"""What only models show."""
