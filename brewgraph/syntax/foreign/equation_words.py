"""What other tools call losses, their options, and what a model gives."""

from brewgraph.syntax.foreign.entry import words

_KL, _KD = "kl(big.logits -> tiny.logits)", "kd(big.logits -> tiny.logits, T=4)"
_CE = "ce(d.labels -> tiny.logits)"
_MSE = "mse(big.hidden[-1] -> tiny.hidden[-1])"
_COS = "cos(big.hidden[-1] -> tiny.hidden[-1])"
_RKD = "rkd_distance(big.pooled -> tiny.pooled)"
_OWN = "for anything else write an operation of your own, and import it"
_MATHS = "operators do it: `+`, `-`, `*`, `/`, `**`"
_PYTHON = "a spec runs no Python; an operation of your own is a Python function, and imported"
_TRAINER = "settings stand in `train { epochs = 3 }`; `brewgraph run SPEC` trains"
_FRAMES = "a model is declared: `teacher NAME = hf(…)`; data: `data NAME = files(…)`"

CALLS = {
    # torch and the like
    **words(
        "dist distance euclidean mean_squared_error "
        "MSELoss mse_loss hidden_mse l2 l2_loss hid_mse hs_mse MeanSquaredError PatienceLoss hidden_loss",
        _MSE,
    ),
    **words(
        "L1Loss l1_loss l1 SmoothL1Loss smooth_l1_loss HuberLoss huber_loss huber mae mae_loss",
        _MSE,
        "an operation of your own may compare otherwise",
    ),
    **words(
        "KLDivLoss kl_div kl_loss kld kl_divergence KLDivergence kldiv KL forward_kl KLLoss",
        _KL,
        "`kd` is the same times T²",
    ),
    **words("reverse_kl rkl reverse_kld", "kl(tiny.logits -> big.logits)"),
    **words(
        "jsd js js_divergence JSD jensen_shannon generalized_jsd_loss",
        "0.5 * kl(big.logits -> tiny.logits) + 0.5 * kl(tiny.logits -> big.logits)",
        "this is Jeffreys' divergence; " + _OWN,
    ),
    **words(
        "kd_loss kd_ce_loss distillation_loss soft_loss distill soft_ce logits_kd KDLoss DistillKLDivLoss KD "
        "soft_cross_entropy SoftTargetLoss soft_target dkd DistillationLoss distill_loss knowledge_distillation",
        _KD,
    ),
    **words("kd_mse_loss logits_mse logit_mse MarginMSELoss", "mse(big.logits -> tiny.logits)"),
    **words(
        "CrossEntropyLoss cross_entropy "
        "NLLLoss nll_loss nll hard_loss ce_loss xent CE crossentropy mlm_loss lm_loss mlm lm clm "
        "task_loss student_loss CrossEntropy categorical_crossentropy",
        _CE,
    ),
    **words(
        "BCEWithLogitsLoss BCELoss binary_cross_entropy binary_cross_entropy_with_logits bce_loss BCE bce_with_logits",
        "bce(big.logits -> tiny.logits)",
        "labels too, where the data has `problem_type=multi_label`",
    ),
    **words(
        "CosineEmbeddingLoss cosine_embedding_loss cosine_similarity CosineSimilarity cos_loss cosine_loss hs_cosine "
        "cosine_sim gram_loss cos_sim CosineSimilarityLoss "
        "sim similarity cosine_distance cosine_embedding",
        _COS,
    ),
    **words(
        "normalize l2_normalize",
        "pkd(big.hidden[-1] -> tiny.hidden[-1])",
        "it brings each state to length one; `cos` compares directions",
    ),
    **words(
        "focal_loss FocalLoss focal hinge hinge_loss MultiMarginLoss TripletMarginLoss TripletLoss triplet_loss "
        "MarginRankingLoss tvd logistic_ranking CTCLoss PoissonNLLLoss GaussianNLLLoss",
        remark="there is no such loss; " + _OWN,
    ),
    # of distillation
    **words(
        "attention_mse attention_mse_sum att_mse att_loss attn_loss attention_loss",
        "mse(big.scores[-1] -> tiny.scores[-1])",
    ),
    **words("attention_ce attention_ce_mean att_ce attention_kl", "kl(big.attention[-1] -> tiny.attention[-1])"),
    **words("mmd_loss", "mmd(big.hidden[-1] -> tiny.hidden[-1])"),
    **words("pkd_loss patience_loss", "pkd(big.hidden[-1] -> tiny.hidden[-1])"),
    **words("nst_loss NSTLoss", "nst(big.hidden[-1] -> tiny.hidden[-1])"),
    **words(
        "InfoNCE contrastive contrastive_loss nt_xent NTXentLoss ContrastiveLoss CRDLoss crd "
        "MultipleNegativesRankingLoss info_nce",
        "infonce(big.pooled -> tiny.pooled)",
    ),
    **words("RKDLoss rkd rkd_loss RKD RkdDistance", _RKD, "`rkd_angle` compares angles"),
    **words("FSPLoss fsp_loss gram_matrix", "fsp((big.hidden[0], big.hidden[1]) -> (tiny.hidden[0], tiny.hidden[1]))"),
    **words("fitnet FitNet FitNetLoss hint HintLoss hint_loss", "mse(big.hidden[1] -> tiny.hidden[1] via linear)"),
    **words("emd_loss EMD earth_mover wasserstein", "emd(big.hidden[1:] -> tiny.hidden[1:])"),
    **words(
        "WeightedSumLoss weighted_sum ce_kd", "0.5 * kd(big.logits -> tiny.logits) + 0.5 * ce(d.labels -> tiny.logits)"
    ),
    # values
    **words("mean_pool mean_pooling avg_pool average_pooling pool Pooling mean_pooled", "token_mean(big.hidden[-1])"),
    **words("cls cls_pool first_token pooler", "big.pooled"),
    **words("detach no_grad stop_gradient stop_grad", "stop(tiny.logits)"),
    **words(
        "prob probs proba log_softmax logsoftmax softmax_temperature sigmoid",
        "probabilities(big.logits)",
        "`kl`, `kd` and `ce` take logits and need no softmax",
    ),
    **words("max_pool max_pooling", remark="there is no maximum over tokens; " + _OWN),
    **words("log exp sqrt abs pow square norm", remark=f"{_MATHS}; write an operation of your own for other maths"),
    **words("average avg", remark="`mean(x)` is the mean over a list, as of `let teachers = [a, b]`"),
    **words("total add", remark="terms are added with `+`, a list with `sum(x)`"),
    **words("linear_decay decay anneal", "ramp(1 -> 0)"),
    **words("linear_growth warmup", "ramp(0 -> 1)"),
    **words("print len range int float str dict list open eval exec enumerate zip", remark=_PYTHON),
    **words(
        "Linear Dropout LayerNorm nn_linear project",
        remark="a projection stands behind `via`: `mse(a -> b via linear)`",
    ),
    **words(
        "hidden hidden_states attention attentions logits layer layers feature",
        remark="features are taken from models, without brackets: `big.hidden[-1]`, `big.logits`",
    ),
    # whole tools
    **words(
        "Trainer TrainingArguments Seq2SeqTrainer SFTTrainer SFTConfig GKDTrainer GKDConfig TrainingConfig "
        "SentenceTransformerTrainer SentenceTransformerTrainingArguments GeneralDistiller BasicDistiller fit",
        remark=_TRAINER,
    ),
    **words(
        "DistillationConfig",
        "kd(big.logits -> tiny.logits, T=4)",
        "`brewgraph convert FILE` makes a spec of a configuration of TextBrewer",
    ),
    **words(
        "AutoModel AutoModelForSequenceClassification AutoModelForMaskedLM AutoModelForCausalLM AutoTokenizer "
        "BertModel from_pretrained load_dataset SentenceTransformer pipeline DataLoader",
        remark=_FRAMES,
    ),
    **words("Adam AdamW SGD Adafactor", remark="settings stand in `train { optimizer = adamw(lr=5e-5) }`"),
}
"""As a call in an equation."""

OPTIONS = {
    **words("temperature tau temp t Temperature", "T=4"),
    **words(
        "reduction reduce_mean size_average", remark='the mean is taken; `reduce="none"` gives one number per example'
    ),
    **words(
        "weight loss_weight alpha coef coefficient lambda_", remark="a weight is a factor in front: `0.5 * kd(a -> b)`"
    ),
    **words("attention_mask ignore_index padding_mask", "mask=none", "left out, padding never counts"),
    **words("num_heads n_heads head num_relation_heads relation_heads", "heads=12"),
    **words("proj projection", remark="a projection stands behind `via`: `mse(a -> b via linear)`"),
    **words(
        "teacher student input target source preds",
        remark="both sides stand around an arrow: `kd(big.logits -> tiny.logits)`",
    ),
    **words(
        "log_target from_logits", remark="logits are taken as they are, probabilities of attention and relations too"
    ),
    **words("label_smoothing", remark="there is no label smoothing"),
}
"""As an option of an operation."""

FEATURES = {
    **words("hidden_states hiddens hidden_state encoder_outputs states", "hidden[-1]", "a number picks a layer"),
    **words("last_hidden_state output outputs last_hidden", "hidden[-1]"),
    **words("attentions attn attention_probs att", "attention[-1]", "before their softmax they are `scores`"),
    **words("attention_scores attn_scores attention_logits", "scores[-1]"),
    **words("pooler_output pooler cls pooled_output cls_token sentence_embedding", "pooled"),
    **words("predictions scores_logits outputs_logits output_logits preds pred", "logits"),
    **words(
        "probs probabilities softmax", "logits", "`kl`, `kd` and `ce` take logits; `probabilities(big.logits)` has them"
    ),
    **words("start_logits", "start"),
    **words("end_logits", "end"),
    **words("embedding embeds input_embeddings inputs_embeds", "embeddings"),
    **words("queries q query_states", "query[-1]"),
    **words("keys k key_states", "key[-1]"),
    **words("values v value_states", "value[-1]"),
    **words("layer encoder bert transformer", remark='any module\'s output: `big @ "encoder.layer.3.output"`'),
    **words("loss", remark="a loss is an equation: `ce(d.labels -> tiny.logits)`"),
    **words(
        "parameters state_dict config eval train to cuda generate forward",
        remark="a spec takes features only: `logits`, `hidden[-1]`, `attention[-1]`",
    ),
}
"""Behind a model's name and a dot."""

NAMES = {
    **words("True yes on TRUE Yes", "true"),
    **words("False no off FALSE No", "false"),
    **words("None null nil Null NULL", "none"),
    **words(
        "nn F torch functional",
        "mse(big.logits -> tiny.logits)",
        "operations have one plain name: `mse`, `kl`, `ce`, `cos`; `brewgraph ops` lists them",
    ),
    **words("np numpy math", remark=_MATHS),
    **words(
        "self batch inputs outputs logits",
        remark="features are said by the model's name: `tiny.logits`, labels by that of the data: `d.labels`",
    ),
    **words(
        "alpha beta gamma lambda_ temperature tau lr weight",
        remark="a number is defined by `let NAME = 0.5`, or by `param NAME = 0.5`, which `--set` changes",
    ),
    **words("labels label targets", "d.labels", "`d` is the name of the data"),
    **words("inf nan pi", remark="write a number"),
    **words(
        "progress epoch step global_step", remark="a weight that changes with training is a schedule: `ramp(1 -> 0)`"
    ),
}
"""As a name in an expression."""

PROJECTIONS = {
    **words("Linear nn.Linear dense Dense mlp MLP fc projection proj affine", "linear"),
    **words("ReLU", "relu"),
    **words("Tanh", "tanh"),
    **words("none identity Identity", remark="without a projection leave `via` out"),
    **words("gelu GELU sigmoid leaky_relu", "relu", "there are `linear`, `relu` and `tanh`"),
}
"""Behind `via`."""
