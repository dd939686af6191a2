"""What other languages begin a statement with, and their words that no expression has."""

from brewgraph.syntax.foreign.entry import words

_CONDITIONS = "the language has no conditions; `after(30%)` and `piecewise(0%: 1, 30%: 0.2)` switch terms by progress"
_LOOPS = "the language has no loops; an operation on a list is the operation on each member"
_MODEL = 'teacher big = hf("folder")'

WORDS = {
    **words("if else and or not in elif", remark=_CONDITIONS),
    **words("for while", remark=_LOOPS),
    **words("def return function fn func", remark="a function is written `f(a, b) = …`"),
    **words("lambda", remark="a function is a statement of its own: `f(a, b) = …`"),
    **words("from include require using", remark='write `import package.module as name` or `import "lib.brew" as lib`'),
}
"""Words of Python and its like, at the beginning of a statement or within one."""

STATEMENTS = {
    **words("class", remark='a model of your own: `student NAME = python("package.module:function")`'),
    **words("with try assert raise del pass print async await global end", remark="a spec runs no Python; remove it"),
    **words("REM rem", remark="comments begin with `#`"),
    **words(
        "const var val int float str string double auto define set",
        remark="a name is defined by `let NAME = VALUE`, what is changed from outside by `param NAME = VALUE`",
    ),
    **words(
        "training trainer Trainer TrainingArguments training_args hyperparameters hparams "
        "settings optimizer_config config",
        "train { epochs = 3 }",
    ),
    **words(
        "dataset datasets Dataset train_dataset train_data", 'data d = files(train="train.jsonl", dev="dev.jsonl")'
    ),
    **words("model models teacher_model teachers", _MODEL, 'the student: `student tiny = hf("folder")`'),
    **words("student_model students", 'student tiny = hf("folder")'),
    **words("criterion loss_fn loss_function loss_functions losses objective", "loss = kd(big.logits -> tiny.logits)"),
    **words("stages stage1 stage2 phase", "stage first for 3 epochs { loss = kd(big.logits -> tiny.logits) }"),
    **words("parameter params variables args arg", "param NAME = VALUE"),
    **words("tasks", "task ner { loss = kd(big.logits -> tiny.logits) }"),
    **words("projection", "proj W = linear(312 -> 768)"),
    **words(
        "heads",
        remark="a head stands in the braces of a model: `{ head ner = token_classifier() }`",
    ),
    **words("hook forward_hook forward_hooks", 'tap t = big @ "encoder.layer.3.output"'),
    **words("version", "brew 1"),
}
"""At the beginning of a statement."""
