"""What belongs to other parts of TextBrewer than its two configurations."""

from brewgraph.syntax.foreign.entry import words

_ARGUMENT = "it is an argument of `train` in TextBrewer, not of its configurations: remove it and set `{0}` of the spec"

CONVERTED = {
    **words("custom_matches", remark="it never worked in TextBrewer: remove it, and write a `tap` into the spec"),
    **words("num_epochs", remark=_ARGUMENT.format("epochs")),
    **words("num_steps", remark=_ARGUMENT.format("steps")),
    **words("max_grad_norm", remark=_ARGUMENT.format("max_grad_norm")),
    **words("scheduler_class scheduler_args", remark=_ARGUMENT.format("schedule")),
    **words("tau", remark=_ARGUMENT.format("tau")),
    **words("optimizer", remark=_ARGUMENT.format("optimizer")),
    **words(
        "dataloader", remark="it is an argument of `train` in TextBrewer: remove it and write `data` into the spec"
    ),
    **words("callback", remark="it is an argument of `train` in TextBrewer: remove it; a spec evaluates by itself"),
}
"""In a configuration that `brewgraph convert` reads."""
