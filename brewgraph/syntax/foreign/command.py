"""What other tools call commands and their options."""

from brewgraph.syntax.foreign.entry import words

COMMANDS = {
    **words("train distill start fit launch execute finetune fine-tune distil", "brewgraph run"),
    **words("test evaluate score benchmark", "brewgraph eval"),
    **words("lint validate verify compile dry-run", "brewgraph check"),
    **words("format", "brewgraph fmt"),
    **words("init create template example quickstart", "brewgraph new"),
    **words("infer inference generate classify", "brewgraph predict"),
    **words("help", "brewgraph --help"),
    **words("draw plot visualize visualise viz dot", "brewgraph graph"),
    **words("list operations losses docs doc", "brewgraph ops"),
    **words("show print cost flops", "brewgraph plan"),
    **words("version", "brewgraph --version"),
    **words("import textbrewer", "brewgraph convert"),
    **words("compare", "brewgraph diff"),
    **words("features modules layers inspect", "brewgraph taps"),
    **words("parameters summary", "brewgraph params"),
    **words("runs status logs history", remark="runs lie in `runs/` beside the spec; `brewgraph eval RUN` scores one"),
    **words("clean delete remove stop kill", remark="a run is a folder in `runs/` beside the spec: delete it there"),
    **words(
        "export serve push upload deploy save",
        remark="the student of a run is an ordinary `save_pretrained` folder: `runs/NAME-HASH/student`",
    ),
}
"""As the first argument."""

_HELD = "the spec names models and data; `param` and `--set` change them"
OPTIONS = {
    **words(
        "teacher student model model-name-or-path train-file data dataset train dev test train-data val-data "
        "validation-file dataset-name data-dir teacher-model student-model tokenizer",
        remark=_HELD,
    ),
    **words(
        "output-dir output save-dir out-dir work-dir o run-name save-path logdir log-dir",
        remark="write `--out FOLDER` for this run, `--runs FOLDER` for all runs",
    ),
    **words("config config-file spec cfg yaml", remark="the spec needs no option: write `brewgraph run SPEC`"),
    **words(
        "gpus num-gpus devices nproc-per-node ddp deepspeed n-gpu num-processes multi-gpu nnodes distributed",
        remark="on several GPUs: `accelerate launch -m brewgraph run SPEC`",
    ),
    **words(
        "device gpu cuda no-cuda cpu use-cpu",
        remark="a GPU is used where there is one; `CUDA_VISIBLE_DEVICES` chooses",
    ),
    **words(
        "resume resume-from-checkpoint continue ckpt checkpoint",
        remark="an interrupted run resumes by itself when the same command is given again",
    ),
    **words("overwrite overwrite-output-dir restart no-resume", "--force"),
    **words("param params set-param override define", "--set NAME=VALUE"),
    **words("do-train", remark="`brewgraph run SPEC` trains"),
    **words("do-eval eval", remark="`brewgraph eval RUN` scores a finished run"),
    **words("do-predict predict", remark="`brewgraph predict RUN` writes what the student of a finished run says"),
    **words("fast-dev-run smoke-test test-run debug-run", "--dry-run"),
    **words("baseline no-teacher student-only", "--without-teacher"),
    **words("trust-remote-code allow-code", "--allow-python"),
    **words("strict werror fail-on-warnings", "--deny warnings"),
    **words("json", "--format json"),
    **words("silent no-progress disable-tqdm", "--quiet"),
    **words("verbose debug", remark="`BREWGRAPH_TRACEBACK=1` shows the traceback of an error"),
    **words(
        "report-to wandb tensorboard logger",
        remark="scores are written to `metrics.jsonl` in the run's folder",
    ),
}
"""As an option of a command, without its dashes."""
