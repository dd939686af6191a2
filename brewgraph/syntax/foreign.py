"""What other tools call things, and what to write here instead: one table, asked before near names are looked for.

An entry holds what to write here, as it could stand in a spec (`write`), and a remark (`remark`): why there is no such
thing, or what else to know. Words are in the table under the place where people write them (`TABLE`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from brewgraph.diagnostics import suggest


class Instead(NamedTuple):
    """What to write in place of a foreign word: a piece of a spec, or only a remark."""

    write: str = ""
    remark: str = ""

    @property
    def help(self) -> str:
        """The remedy of a diagnostic."""
        return "; ".join(x for x in (f"write `{self.write}`" if self.write else "", self.remark) if x)


def _all(words: str, write: str = "", remark: str = "") -> dict[str, Instead]:
    return dict.fromkeys(words.split(), Instead(write, remark))


_RATE, _WARMUP = "optimizer = adamw(lr=5e-5)", "schedule = linear(warmup=10%)"
_BATCH = "the batch size belongs to the data: `data d = files(…, batch=32)`"
_LENGTH = "the length belongs to the data: `data d = files(…, max_length=128)`"
_FOLDER = "a spec does not say where a run is kept: `brewgraph run SPEC --out FOLDER`"
_DEVICE = "a GPU is used where there is one; several: `accelerate launch -m brewgraph run SPEC`"
_LOGGED = "scores are written to `metrics.jsonl` in the run's folder"
_HUB = "runs are kept on disk; push the student's folder yourself"
_RESUME = "an interrupted run resumes by itself when the same command is given again"

SETTINGS = {
    **_all("num_train_epochs num_epochs n_epochs max_epochs epoch total_epochs", "epochs = 3"),
    **_all(
        "max_steps num_steps total_steps num_train_steps num_training_steps max_train_steps n_steps", "steps = 1000"
    ),
    **_all("learning_rate lr adam_lr base_lr init_lr", _RATE),
    **_all("weight_decay wd", "optimizer = adamw(weight_decay=0.01)"),
    **_all("adam_beta1 adam_beta2 betas", "optimizer = adamw(betas=[0.9, 0.999])"),
    **_all("adam_epsilon eps epsilon", "optimizer = adamw(eps=1e-8)"),
    **_all("momentum", "optimizer = sgd(momentum=0.9)"),
    **_all("layerwise_lr_decay llrd layer_decay", "optimizer = adamw(layerwise_decay=0.95)"),
    **_all("optim optimiser opt", "optimizer = adamw(lr=5e-5)"),
    **_all(
        "gradient_accumulation_steps grad_accum accumulation_steps accumulate_grad_batches grad_accumulation",
        "accumulate = 4",
    ),
    **_all(
        "clip clip_grad clip_grad_norm grad_clip gradient_clip_val gradient_clipping grad_norm", "max_grad_norm = 1.0"
    ),
    **_all("fp16 use_fp16 half", "precision = fp16"),
    **_all("bf16 use_bf16 mixed_precision amp autocast dtype torch_dtype", "precision = bf16"),
    **_all("tf32", "precision = fp32"),
    **_all("warmup warmup_ratio warmup_proportion", _WARMUP),
    **_all("warmup_steps num_warmup_steps warm_steps", "schedule = linear(warmup=500 steps)"),
    **_all(
        "lr_scheduler lr_scheduler_type scheduler scheduler_type lr_schedule scheduler_class "
        "sched lr_scheduler_kwargs scheduler_args",
        _WARMUP,
    ),
    **_all(
        "batch batch_size per_device_train_batch_size per_gpu_train_batch_size "
        "train_batch_size per_device_eval_batch_size eval_batch_size bsz",
        remark=_BATCH,
    ),
    **_all("max_length max_seq_length max_seq_len max_len block_size", remark=_LENGTH),
    **_all(
        "early_stopping patience early_stop early_stopping_rounds",
        'metric_for_best_model = "accuracy"; early_stopping_patience = 3',
    ),
    **_all("load_best keep_best save_best save_best_only", 'metric_for_best_model = "accuracy"'),
    **_all("best_metric monitor metric metric_for_best", 'metric_for_best_model = "accuracy"'),
    **_all("normalize", 'normalise = "global"'),
    **_all(
        "evaluate eval evaluation_strategy eval_strategy eval_every eval_interval "
        "evaluate_every val_check_interval do_eval",
        "eval_steps = 500 steps",
    ),
    **_all(
        "save save_strategy save_every save_interval checkpoint_every ckpt_steps "
        "ckpt_frequency ckpt_epoch_frequency do_save",
        "save_steps = 500 steps",
    ),
    **_all("keep_checkpoints max_checkpoints save_top_k", "save_total_limit = 2"),
    **_all(
        "logging log_every log_steps log_interval log_every_n_steps print_every logging_strategy print_freq",
        "logging_steps = 20",
    ),
    **_all("data_seed random_seed manual_seed random_state", "seed = 0"),
    **_all("length_column_name bucket_by_length", "group_by_length = true"),
    **_all("freeze_layers frozen freeze_encoder", 'freeze = [tiny @ "embeddings"]', "a stage may freeze other parts"),
    **_all("temperature T tau", remark="the temperature belongs to the loss: `kd(big.logits -> tiny.logits, T=4)`"),
    **_all(
        "alpha beta hard_label_weight kd_loss_weight hard_loss_weight distillation_weight loss_weight lmbda",
        remark="weights belong to the equation: `loss = 0.5 * hard + 0.5 * soft`",
    ),
    **_all(
        "kd_loss_type loss_type loss_fn criterion loss_function intermediate_matches",
        remark="the loss is an equation: `loss = kd(big.logits -> tiny.logits)`",
    ),
    **_all("label_smoothing label_smoothing_factor", remark="there is no label smoothing"),
    **_all(
        "output_dir log_dir logging_dir save_dir work_dir default_root_dir "
        "overwrite_output_dir run_name checkpoint_dir out_dir",
        remark=_FOLDER,
    ),
    **_all(
        "device devices no_cuda use_cpu gpus n_gpu num_gpus accelerator local_rank use_cuda "
        "gpu ddp_backend deepspeed fsdp",
        remark=_DEVICE,
    ),
    **_all("report_to wandb tensorboard disable_tqdm log_level logger", remark=_LOGGED),
    **_all("push_to_hub hub_model_id hub_token", remark=_HUB),
    **_all("resume resume_from_checkpoint ignore_data_skip", remark=_RESUME),
    **_all(
        "num_workers dataloader_num_workers dataloader_pin_memory dataloader_drop_last "
        "pin_memory drop_last remove_unused_columns shuffle",
        remark="loading needs no settings: data is encoded once and kept, and its order follows from `seed`",
    ),
    **_all(
        "gradient_checkpointing torch_compile",
        remark="not supported; a smaller `batch` with `accumulate = 4` needs less memory",
    ),
    **_all(
        "do_train do_predict prediction_loss_only",
        remark="commands say what is done: `brewgraph run`, `brewgraph eval`, `brewgraph predict`",
    ),
}
"""In `train { }`."""

_KL = "kl(big.logits -> tiny.logits)"
_CE = "ce(d.labels -> tiny.logits)"
_MSE = "mse(big.hidden[-1] -> tiny.hidden[-1])"
_MATHS = "operators do it: `+`, `-`, `*`, `/`, `**`"
CALLS = {
    **_all("MSELoss mse_loss hidden_mse l2 l2_loss hid_mse", _MSE),
    **_all(
        "L1Loss l1_loss SmoothL1Loss smooth_l1_loss HuberLoss huber_loss huber mae",
        _MSE,
        "an operation of your own may compare otherwise",
    ),
    **_all("KLDivLoss kl_div kl_loss kld", _KL, "`kd` is the same times T²"),
    **_all(
        "kd_loss kd_ce_loss distillation_loss soft_loss distill soft_ce logits_kd", "kd(big.logits -> tiny.logits, T=4)"
    ),
    **_all("kd_mse_loss logits_mse logit_mse", "mse(big.logits -> tiny.logits)"),
    **_all("CrossEntropyLoss cross_entropy NLLLoss nll_loss hard_loss ce_loss xent", _CE),
    **_all(
        "BCEWithLogitsLoss BCELoss binary_cross_entropy binary_cross_entropy_with_logits bce_loss",
        "bce(big.logits -> tiny.logits)",
        "labels too, where the data has `problem_type=multi_label`",
    ),
    **_all(
        "CosineEmbeddingLoss cosine_embedding_loss cosine_similarity CosineSimilarity cos_loss cosine_loss",
        "cos(big.hidden[-1] -> tiny.hidden[-1])",
    ),
    **_all(
        "normalize l2_normalize",
        "pkd(big.hidden[-1] -> tiny.hidden[-1])",
        "it brings each state to length one; `cos` compares directions",
    ),
    **_all("mean_pool mean_pooling avg_pool average_pooling pool", "token_mean(big.hidden[-1])"),
    **_all("cls cls_pool first_token pooler", "big.pooled"),
    **_all("attention_mse attention_mse_sum att_mse", "mse(big.scores[-1] -> tiny.scores[-1])"),
    **_all("attention_ce attention_ce_mean att_ce", "kl(big.attention[-1] -> tiny.attention[-1])"),
    **_all("mmd_loss", "mmd(big.hidden[-1] -> tiny.hidden[-1])"),
    **_all("cosine_sim gram_loss cos_sim", "cos(big.hidden[-1] -> tiny.hidden[-1])"),
    **_all("pkd_loss", "pkd(big.hidden[-1] -> tiny.hidden[-1])"),
    **_all("nst_loss", "nst(big.hidden[-1] -> tiny.hidden[-1])"),
    **_all("InfoNCE contrastive contrastive_loss nt_xent", "infonce(big.pooled -> tiny.pooled)"),
    **_all("RKDLoss rkd rkd_loss", "rkd_distance(big.pooled -> tiny.pooled)", "`rkd_angle` compares angles"),
    **_all("detach no_grad stop_gradient stop_grad", "stop(tiny.logits)"),
    **_all("log_softmax", "probabilities(big.logits)", "`kl`, `kd` and `ce` take logits and need no softmax"),
    **_all("log exp sqrt abs pow square", remark=_MATHS + "; write an operation of your own for other maths"),
    **_all(
        "print len range int float str",
        remark="a spec runs no Python; an operation of your own is a Python function, and imported",
    ),
    **_all("Linear Dropout LayerNorm", remark="a projection stands behind `via`: `mse(a -> b via linear)`"),
}
"""As a call in an equation."""
OPTIMIZERS = {
    **_all(
        "Adam adam AdamW AdamWeightDecay FusedAdam BertAdam adamw_torch adamw_hf "
        "adamw_torch_fused Lamb lamb LAMB Adafactor adafactor Lion lion RAdam RMSprop rmsprop "
        "Adagrad",
        "optimizer = adamw(lr=5e-5)",
        "there are `adamw` and `sgd`",
    ),
    **_all("SGD momentum torch", "optimizer = sgd(lr=0.05)", "there are `adamw` and `sgd`"),
}
"""Behind `optimizer =`."""

SCHEDULES = {
    **_all(
        "linear_warmup warmup_linear linear_schedule_with_warmup "
        "get_linear_schedule_with_warmup LinearLR polynomial "
        "get_polynomial_decay_schedule_with_warmup",
        "schedule = linear(warmup=10%)",
    ),
    **_all(
        "cosine_with_restarts get_cosine_schedule_with_warmup CosineAnnealingLR "
        "cosine_annealing OneCycleLR cosine_with_min_lr",
        "schedule = cosine(warmup=10%)",
    ),
    **_all(
        "constant_with_warmup get_constant_schedule get_constant_schedule_with_warmup",
        "schedule = constant(warmup=10%)",
    ),
    **_all("slanted_triangular STLR", "schedule = slanted(warmup=10%)"),
    **_all(
        "StepLR MultiStepLR ExponentialLR ReduceLROnPlateau inverse_sqrt step",
        remark="there are `linear`, `cosine`, `constant` and `slanted`",
    ),
}
"""Behind `schedule =`."""

_HF = 'hf("bert-base-uncased")'
MODELS = {
    **_all(
        "AutoModel AutoModelForSequenceClassification AutoModelForTokenClassification "
        "AutoModelForQuestionAnswering AutoModelForMaskedLM AutoModelForCausalLM BertModel "
        "BertForSequenceClassification AutoModel.from_pretrained "
        "AutoModelForSequenceClassification.from_pretrained BertModel.from_pretrained "
        "from_pretrained AutoConfig transformers pretrained huggingface pipeline",
        _HF,
        "the head follows from the data",
    ),
    **_all("nn.Module torch.load load module", remark='a model of your own: `python("package.module:function")`'),
}
"""Behind `teacher NAME =` and `student NAME =`."""

DATA = {
    **_all(
        "load_dataset datasets dataset Dataset huggingface",
        'hub("imdb")',
        'files on disk: `files(train="train.jsonl")`',
    ),
    **_all(
        "csv json jsonl tsv parquet load_csv read_csv pd.read_csv",
        'files(train="train.csv", dev="dev.csv")',
        "the format follows from the file's name",
    ),
    **_all("DataLoader dataloader", 'batches("folder")', 'or files: `files(train="train.jsonl")`'),
    **_all("lines LineByLineTextDataset wikitext txt", 'text(train="train.txt")'),
}
"""Behind `data NAME =`."""

ARGUMENTS = {
    **_all("batch_size per_device_train_batch_size bsz train_batch_size", "batch=32"),
    **_all("max_seq_length max_seq_len max_len maxlen sequence_length", "max_length=128"),
    **_all("train_file train_data training train_path train_split", 'train="train.jsonl"'),
    **_all("validation_file validation valid val eval eval_file dev_file validation_split val_file", 'dev="dev.jsonl"'),
    **_all("test_file", 'test="test.jsonl"'),
    **_all("label_column label_column_name labels target label_name", 'label="label"'),
    **_all("text_column text_column_name sentence input_column", 'text="text"'),
    **_all("label_list class_names label_names", 'classes=["no", "yes"]'),
    **_all("doc_stride", "stride=128"),
    **_all("mlm_probability", "mask=0.15"),
    **_all("block_size", "block=128"),
    **_all("learning_rate", "lr=5e-5"),
    **_all("beta1 beta2 adam_beta1 adam_beta2", "betas=[0.9, 0.999]"),
    **_all("epsilon adam_epsilon", "eps=1e-8"),
    **_all("wd decay l2", "weight_decay=0.01"),
    **_all("warmup_steps num_warmup_steps", "warmup=500 steps"),
    **_all("warmup_ratio warmup_proportion", "warmup=10%"),
}
"""As an argument of a source, an optimizer or a schedule, where that has the argument on the right."""

OPTIONS = {
    **_all("temperature tau temp t", "T=4"),
    **_all("reduction", remark='the mean is taken; `reduce="none"` gives one number per example'),
    **_all("weight loss_weight", remark="a weight is a factor in front: `0.5 * kd(a -> b)`"),
    **_all("attention_mask ignore_index", "mask=none", "left out, padding never counts"),
}
"""As an option of an operation."""

FEATURES = {
    **_all("hidden_states hiddens hidden_state encoder_outputs", "hidden[-1]", "a number picks a layer"),
    **_all("last_hidden_state output outputs", "hidden[-1]"),
    **_all("attentions attn attention_probs", "attention[-1]", "before their softmax they are `scores`"),
    **_all("attention_scores attn_scores", "scores[-1]"),
    **_all("pooler_output pooler cls pooled_output", "pooled"),
    **_all("predictions scores_logits outputs_logits", "logits"),
    **_all("start_logits", "start"),
    **_all("end_logits", "end"),
    **_all("embedding embeds input_embeddings", "embeddings"),
    **_all("loss", remark="a loss is an equation: `ce(d.labels -> tiny.logits)`"),
    **_all(
        "parameters state_dict config eval train",
        remark="a spec takes features only: `logits`, `hidden[-1]`, `attention[-1]`",
    ),
}
"""Behind a model's name and a dot."""

NAMES = {
    **_all("True yes on TRUE Yes", "true"),
    **_all("False no off FALSE No", "false"),
    **_all("None null nil Null NULL", "none"),
    **_all(
        "nn F torch functional",
        "mse(big.logits -> tiny.logits)",
        "operations have one plain name: `mse`, `kl`, `ce`, `cos`; `brewgraph ops` lists them",
    ),
    **_all("np numpy math", remark=_MATHS),
    **_all(
        "self batch inputs outputs",
        remark="features are said by the model's name: `tiny.logits`, labels by that of the data: `d.labels`",
    ),
    **_all("inf nan pi", remark="write a number"),
}
"""As a name in an expression."""

TABLE = {
    "setting": SETTINGS,
    "call": CALLS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "model source": MODELS,
    "data source": DATA,
    "argument": ARGUMENTS,
    "option": OPTIONS,
    "feature": FEATURES,
    "name": NAMES,
}
"""Where a word stands -> the word -> what to write instead."""


def instead(place: str, word: str, known: Iterable[str] = ()) -> str:
    """The remedy for a word that is not known at this place: what other tools mean by it, else a near known word.

    Empty where neither is there. An argument is offered only where `known` has it.
    """
    names = list(known)
    entry = TABLE.get(place, {}).get(word)
    if entry and place in ("argument", "option") and entry.write and entry.write.partition("=")[0] not in names:
        entry = None
    return entry.help if entry else suggest(word, names)
