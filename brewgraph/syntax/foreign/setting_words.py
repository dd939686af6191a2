"""What other tools call the settings of training."""

from brewgraph.syntax.foreign.entry import Instead, words

_RATE, _WARMUP = "optimizer = adamw(lr=5e-5)", "schedule = linear(warmup=10%)"
_BATCH = ("", "the batch size belongs to the data", "data d = files(…, batch=32)")
_LENGTH = ("", "the length belongs to the data", "data d = files(…, max_length=128)")
_DATA = ("", "data is a statement outside `train`", 'data d = files(train="train.jsonl", dev="dev.jsonl")')
_MODEL = ("", "models are statements outside `train`", 'teacher big = hf("folder")')
_EQUATION = ("", "the loss is an equation outside `train`", "loss = kd(big.logits -> tiny.logits)")
_TEXTS = "nothing is generated in training: write the teacher's texts to a file, and name it in `data`"
_FOLDER = "a spec does not say where a run is kept: `brewgraph run SPEC --out FOLDER`"
_DEVICE = "a GPU is used where there is one; several: `accelerate launch -m brewgraph run SPEC`"
_LOGGED = "scores are written to `metrics.jsonl` in the run's folder"
_HUB = "runs are kept on disk; push the student's folder yourself"
_RESUME = "an interrupted run resumes by itself when the same command is given again"
_SHORT = "for a trial run: `brewgraph run SPEC --dry-run`"
_LOADING = "loading needs no settings: data is encoded once and kept, and its order follows from `seed`"
_ATTENTION = "left out: attention runs eagerly in just those layers whose attention is used"

OWN = {
    name: Instead(write)
    for name, write in {
        "epochs": "epochs = 3",
        "steps": "steps = 1000",
        "optimizer": _RATE,
        "schedule": _WARMUP,
        "precision": "precision = bf16",
        "accumulate": "accumulate = 4",
        "max_grad_norm": "max_grad_norm = 1.0",
        "clip_projections": "clip_projections = false",
        "clip_each": "clip_each = true",
        "normalise": "normalise = micro",
        "freeze": 'freeze = [tiny @ "embeddings"]',
        "seed": "seed = 1",
        "group_by_length": "group_by_length = true",
        "eval_steps": "eval_steps = 500 steps",
        "save_steps": "save_steps = 500 steps",
        "save_total_limit": "save_total_limit = 2",
        "logging_steps": "logging_steps = 20",
        "report": "report = [soft, hard]",
        "metric_for_best_model": 'metric_for_best_model = "accuracy"',
        "greater_is_better": 'metric_for_best_model = "accuracy"; greater_is_better = true',
        "load_best_model_at_end": 'metric_for_best_model = "accuracy"; load_best_model_at_end = true',
        "early_stopping_patience": 'metric_for_best_model = "accuracy"; early_stopping_patience = 3',
        "early_stopping_threshold": 'metric_for_best_model = "accuracy"; early_stopping_threshold = 0.01',
        "baseline": "baseline = true",
    }.items()
}
"""The settings of `train { }` themselves, for those who write them elsewhere."""

SETTINGS = {
    # how long
    **words(
        "num_train_epochs num_epochs n_epochs max_epochs epoch total_epochs num_epoch n_epoch nb_epochs train_epochs "
        "niter",
        "epochs = 3",
    ),
    **words(
        "max_steps num_steps total_steps num_train_steps num_training_steps max_train_steps n_steps steps_per_epoch "
        "limit_train_batches max_iters train_iters iterations",
        "steps = 1000",
    ),
    **words("fast_dev_run overfit_batches limit_val_batches max_train_samples num_sanity_val_steps", remark=_SHORT),
    # optimizer
    **words("learning_rate lr adam_lr base_lr init_lr lrate", _RATE),
    **words("weight_decay wd", "optimizer = adamw(weight_decay=0.01)"),
    **words("adam_beta1 adam_beta2 betas", "optimizer = adamw(betas=[0.9, 0.999])"),
    **words("adam_epsilon eps epsilon", "optimizer = adamw(eps=1e-8)"),
    **words("momentum", "optimizer = sgd(momentum=0.9)"),
    **words("layerwise_lr_decay llrd layer_decay", "optimizer = adamw(layerwise_decay=0.95)"),
    **words("optim optimiser opt optimizer_class optimizer_params optim_args optimizer_type adam adamw sgd", _RATE),
    **words(
        "gradient_accumulation_steps grad_accum accumulation_steps accumulate_grad_batches grad_accumulation "
        "grad_accum_step grad_accumulation_steps gradient_accumulation",
        "accumulate = 4",
    ),
    **words(
        "clip clip_grad clip_grad_norm grad_clip gradient_clip_val gradient_clipping grad_norm max_norm "
        "gradient_clip clip_norm clip_gradients",
        "max_grad_norm = 1.0",
    ),
    **words("gradient_clip_algorithm", "max_grad_norm = 1.0", "gradients are clipped by their norm"),
    # numbers
    **words("fp16 use_fp16 half fp16_opt_level", "precision = fp16"),
    **words("bf16 use_bf16 mixed_precision amp use_amp autocast dtype torch_dtype bf16_full_eval", "precision = bf16"),
    **words("tf32", "precision = fp32"),
    # schedule
    **words("warmup warmup_ratio warmup_proportion", _WARMUP),
    **words("warmup_steps num_warmup_steps warm_steps", "schedule = linear(warmup=500 steps)"),
    **words(
        "lr_scheduler lr_scheduler_type scheduler scheduler_type lr_schedule scheduler_class "
        "sched lr_scheduler_kwargs scheduler_args lr_scheduler_config scheduling_step step_size",
        _WARMUP,
    ),
    # what belongs to data
    **words(
        "batch batch_size per_device_train_batch_size per_gpu_train_batch_size "
        "train_batch_size per_device_eval_batch_size eval_batch_size bsz auto_find_batch_size micro_batch_size "
        "global_batch_size",
        *_BATCH,
    ),
    **words(
        "length max_length max_seq_length max_seq_len max_len block_size sequence_length seq_len cutoff_len", *_LENGTH
    ),
    **words(
        "dataset datasets data_dir dataset_name dataset_path train_dataset eval_dataset train_file validation_file "
        "train_data train_data_loader val_data_loader train_dataloader train_path data_files label_names",
        *_DATA,
    ),
    **words(
        "batch_sampler multi_dataset_batch_sampler sampler",
        "",
        "several data sets are tasks, and drawn by a law",
        "sample [a, b] ~ size ** 0.5",
    ),
    # evaluation, checkpoints, lines
    **words(
        "early_stopping patience early_stop early_stopping_rounds",
        'metric_for_best_model = "accuracy"; early_stopping_patience = 3',
    ),
    **words(
        "callbacks",
        'metric_for_best_model = "accuracy"; early_stopping_patience = 3',
        "there are no callbacks; checkpoints and evaluation are settings, too",
    ),
    **words("min_delta", 'metric_for_best_model = "accuracy"; early_stopping_threshold = 0.01'),
    **words("load_best keep_best save_best save_best_only", 'metric_for_best_model = "accuracy"'),
    **words("best_metric monitor metric metric_for_best metrics", 'metric_for_best_model = "accuracy"'),
    **words("compute_metrics include_for_metrics", remark="metrics follow from the labels of the data"),
    **words("normalize average_tokens_across_devices", 'normalise = "global"'),
    **words(
        "evaluate eval evaluation_strategy eval_strategy eval_every eval_interval "
        "evaluate_every val_check_interval do_eval evaluation evaluation_steps evaluator eval_freq",
        "eval_steps = 500 steps",
    ),
    **words("check_val_every_n_epoch eval_epochs", "eval_steps = 1 epochs"),
    **words(
        "save save_strategy save_every save_interval checkpoint_every ckpt_steps ckpt_frequency ckpt_epoch_frequency "
        "do_save checkpoint_save_steps save_freq checkpoint_steps every_n_train_steps enable_checkpointing",
        "save_steps = 500 steps",
    ),
    **words("keep_checkpoints max_checkpoints save_top_k checkpoint_save_total_limit", "save_total_limit = 2"),
    **words(
        "logging log_every log_steps log_interval log_every_n_steps print_every logging_strategy print_freq log_freq",
        "logging_steps = 20",
    ),
    **words("data_seed random_seed manual_seed random_state", "seed = 0"),
    **words("deterministic full_determinism benchmark", "seed = 0", "everything random follows from it"),
    **words("length_column_name bucket_by_length train_sampling_strategy", "group_by_length = true"),
    **words(
        "freeze_layers freezing frozen freeze_encoder frozen_modules requires_grad freeze_teacher trainable",
        'freeze = [tiny @ "embeddings"]',
        "teachers never learn, and a stage may freeze other parts",
    ),
    # losses
    **words(
        "temperature T tau temp kd_temperature kd_T",
        "",
        "the temperature belongs to the loss",
        "kd(big.logits -> tiny.logits, T=4)",
    ),
    **words(
        "temperature_scheduler",
        "",
        "a temperature that changes belongs to the loss",
        "kd(big.logits -> tiny.logits, T=flsw(4, beta=1, gamma=1))",
    ),
    **words(
        "alpha beta gamma hard_label_weight kd_loss_weight hard_loss_weight distillation_weight loss_weight "
        "kd_weight ce_weight distill_weight alpha_ce alpha_mlm alpha_cos distillation_alpha kd_alpha kd_ratio weights",
        "",
        "weights belong to the equation",
        "loss = 0.5 * hard + 0.5 * soft",
    ),
    **words(
        "hard_label_weight_scheduler kd_loss_weight_scheduler",
        "",
        "a weight that changes with training belongs to the equation",
        "loss = ramp(1 -> 0) * soft + hard",
    ),
    **words(
        "kd_loss_type loss_type loss_fn criterion loss_function loss loss_functions losses sub_terms distillation_type "
        "train_objectives objective distill_loss kd_loss",
        *_EQUATION,
    ),
    **words(
        "intermediate_matches layer_mapping layer_map matches hint_layers",
        "",
        "matches of layers are terms of the loss",
        "mse(big.hidden[0, 2] -> tiny.hidden[0, 1])",
    ),
    **words(
        "custom_matches forward_hook forward_hooks",
        "",
        "what a module gives is a tap outside `train`, and stands in the loss",
        'tap t = big @ "encoder.layer.3.output"',
    ),
    **words(
        "probability_shift",
        "",
        "the teacher's logits are put right in the loss",
        "kd(shift(big.logits, d.labels) -> tiny.logits)",
    ),
    **words(
        "is_caching_logits cache_logits cache_output",
        "",
        "a cache is a statement outside `train`",
        'cache kept = big.logits at "cache"',
    ),
    **words(
        "force_hidden_state_projection projections",
        "",
        "a projection stands in the loss",
        "mse(big.hidden[1] -> tiny.hidden[1] via linear)",
    ),
    **words("label_smoothing label_smoothing_factor", remark="there is no label smoothing"),
    **words("lmbda seq_kd max_new_tokens on_policy", remark=_TEXTS),
    # models
    **words(
        "teacher_model teacher_model_name_or_path teacher_name teacher_path model_name model_name_or_path model models",
        *_MODEL,
    ),
    **words(
        "student_model student_name student_model_name_or_path student_path",
        "",
        "models are statements outside `train`",
        'student tiny = hf("folder")',
    ),
    **words(
        "tokenizer tokenizer_name processing_class",
        "",
        "a tokenizer belongs to its model",
        'student tiny = hf("folder", tokenizer="folder")',
    ),
    **words(
        "dropout hidden_dropout disable_dropout",
        "",
        "dropout belongs to the model's configuration",
        'student tiny = hf("folder", hidden_dropout_prob=0.1)',
    ),
    **words(
        "lora use_peft peft_config lora_r lora_alpha use_lora",
        "",
        "an adapter belongs to the model",
        'student tiny = hf("folder", adapter=lora(r=8))',
    ),
    **words(
        "num_layers n_layers layers hidden_size num_hidden_layers hidden_dim num_heads num_attention_heads vocab_size",
        "",
        "sizes belong to the model",
        'student tiny = hf(model_type="bert", num_hidden_layers=2)',
    ),
    **words(
        "ema swa ema_decay use_ema stochastic_weight_avg",
        "",
        "the running average of the student is a teacher",
        "teacher steady = ema(tiny, decay=0.999)",
    ),
    **words("attn_implementation use_flash_attention", remark=_ATTENTION),
    **words(
        "stages stage1 stage2 stage_1 stage_2",
        "",
        "stages stand outside `train`",
        "stage first for 3 epochs { loss = kd(big.logits -> tiny.logits) }",
    ),
    # the machine and the run
    **words(
        "output_dir log_dir logging_dir save_dir work_dir default_root_dir overwrite_output_dir run_name "
        "checkpoint_dir out_dir output_path checkpoint_path dirpath save_path experiment_name",
        remark=_FOLDER,
    ),
    **words(
        "device devices no_cuda use_cpu gpus n_gpu num_gpus accelerator local_rank use_cuda gpu ddp_backend deepspeed "
        "fsdp fsdp_config strategy num_nodes data_parallel ddp_find_unused_parameters ddp_timeout distributed "
        "multi_gpu cuda tpu_num_cores",
        remark=_DEVICE,
    ),
    **words(
        "report_to wandb tensorboard disable_tqdm log_level logger enable_progress_bar show_progress_bar project "
        "project_name wandb_project use_wandb",
        remark=_LOGGED,
    ),
    **words("profiler skip_memory_metrics", remark="`brewgraph plan SPEC` counts FLOPs and memory"),
    **words("push_to_hub hub_model_id hub_token hub_strategy hub_private_repo", remark=_HUB),
    **words("resume resume_from_checkpoint ignore_data_skip ckpt_path", remark=_RESUME),
    **words(
        "num_workers dataloader_num_workers dataloader_pin_memory dataloader_drop_last pin_memory drop_last "
        "remove_unused_columns shuffle dataloader_prefetch_factor dataloader_persistent_workers collate_fn "
        "data_collator random_sample",
        remark=_LOADING,
    ),
    **words(
        "gradient_checkpointing torch_compile compile gradient_checkpointing_kwargs activation_checkpointing",
        remark="not supported; a smaller `batch` with `accumulate = 4` needs less memory",
    ),
    **words(
        "do_train do_predict do_test prediction_loss_only",
        remark="commands say what is done: `brewgraph run`, `brewgraph eval`, `brewgraph predict`",
    ),
    **words(
        "training_args train_config distill_config kwargs args config",
        remark="write the settings themselves, each `name = value`",
    ),
}
"""In `train { }`."""

OPTIMIZERS = {
    **words(
        "Adam adam AdamW AdamWeightDecay FusedAdam BertAdam adamw_torch adamw_hf adamw_torch_fused adamw_torch_xla "
        "adamw_bnb_8bit adamw_8bit adamw_apex_fused paged_adamw_8bit paged_adamw_32bit Lamb lamb LAMB Adafactor "
        "adafactor Lion lion RAdam NAdam Adamax RMSprop rmsprop Adagrad adagrad Muon optimizer_no_decay",
        "optimizer = adamw(lr=5e-5)",
        "there are `adamw` and `sgd`",
    ),
    **words("SGD momentum torch nesterov ASGD", "optimizer = sgd(lr=0.05)", "there are `adamw` and `sgd`"),
}
"""Behind `optimizer =`."""

SCHEDULES = {
    **words(
        "linear_warmup warmup_linear linear_schedule_with_warmup get_linear_schedule_with_warmup LinearLR polynomial "
        "get_polynomial_decay_schedule_with_warmup PolynomialLR WarmupLinear linear_decay",
        "schedule = linear(warmup=10%)",
    ),
    **words(
        "cosine_with_restarts get_cosine_schedule_with_warmup CosineAnnealingLR cosine_annealing OneCycleLR "
        "cosine_with_min_lr cosine_warmup_with_min_lr CosineAnnealingWarmRestarts cosine_warmup",
        "schedule = cosine(warmup=10%)",
    ),
    **words(
        "constant_with_warmup get_constant_schedule get_constant_schedule_with_warmup WarmupConstant ConstantLR none",
        "schedule = constant(warmup=10%)",
    ),
    **words("slanted_triangular STLR CyclicLR", "schedule = slanted(warmup=10%)"),
    **words(
        "StepLR MultiStepLR ExponentialLR ReduceLROnPlateau reduce_lr_on_plateau inverse_sqrt step exponential "
        "LambdaLR warmup_stable_decay poly",
        remark="there are `linear`, `cosine`, `constant` and `slanted`",
    ),
}
"""Behind `schedule =`."""

METRICS = {
    **words("eval_accuracy acc val_acc val_accuracy eval_acc top1 accuracy_score", "accuracy"),
    **words("eval_f1 f1_score val_f1 F1", "f1"),
    **words("f1_macro eval_f1_macro eval_macro_f1 macro", "macro_f1"),
    **words("f1_micro eval_micro_f1 micro", "micro_f1"),
    **words("mcc matthews_correlation eval_matthews_correlation matthews_corrcoef", "matthews"),
    **words("spearmanr eval_spearmanr spearman_cosine", "spearman"),
    **words("pearsonr eval_pearson pearson_cosine", "pearson"),
    **words("em exact eval_exact_match eval_exact", "exact_match"),
    **words("ppl eval_perplexity", "perplexity"),
    **words("seqeval overall_f1 eval_overall_f1 entity_f1", "f1"),
}
"""As the value of `metric_for_best_model`, where there is the metric on the right."""
