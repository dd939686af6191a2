"""What other tools call models and data, and the arguments of their sources."""

from brewgraph.syntax.foreign.entry import words

_HF = 'hf("bert-base-uncased")'
_FILES = 'files(train="train.csv", dev="dev.csv")'

MODELS = {
    **words(
        "AutoModel AutoModelForSequenceClassification AutoModelForTokenClassification AutoModelForQuestionAnswering "
        "AutoModelForMaskedLM AutoModelForCausalLM BertModel BertForSequenceClassification AutoModel.from_pretrained "
        "AutoModelForSequenceClassification.from_pretrained BertModel.from_pretrained from_pretrained AutoConfig "
        "transformers pretrained huggingface pipeline SentenceTransformer PeftModel model bert distilbert "
        "roberta albert deberta electra gpt2 t5 llama bert_base auto "
        "model_name checkpoint",
        _HF,
        "the head follows from the data",
    ),
    **words(
        "nn.Module torch.load load module torch.hub.load custom",
        remark='a model of your own: `python("package.module:function")`',
    ),
    **words(
        "BertConfig config scratch random from_config", 'hf(model_type="bert", num_hidden_layers=2, hidden_size=128)'
    ),
    **words("lora LoraConfig get_peft_model peft", 'hf("bert-base-uncased", adapter=lora(r=8))'),
    **words("EMA moving_average mean_teacher", "ema(tiny, decay=0.999)"),
    **words("lstm bilstm BiLSTM LSTM gru GRU rnn", "bigru(hidden_size=256)"),
    **words("spec run student train", 'brew("teacher.brew")'),
}
"""Behind `teacher NAME =` and `student NAME =`."""

DATA = {
    **words(
        "load_dataset datasets dataset Dataset huggingface hf_dataset",
        'hub("imdb")',
        'files on disk: `files(train="train.jsonl")`',
    ),
    **words(
        "csv json jsonl tsv parquet load_csv read_csv pd.read_csv load folder read",
        _FILES,
        "the format follows from the file's name",
    ),
    **words(
        "DataLoader dataloader TensorDataset tensors safetensors",
        'batches("folder")',
        'or files: `files(train="train.jsonl")`',
    ),
    **words("lines LineByLineTextDataset wikitext txt corpus raw plain", 'text(train="train.txt")'),
    **words("conll2003 conll03 ner iob bio", 'conll(train="train.conll", dev="dev.conll")'),
    **words("squad_v2 squad2 qa", 'squad(train="train.json", dev="dev.json")'),
    **words("mnli sst2 cola mrpc qqp stsb qnli rte wnli", 'glue("mnli")', "the task stands in quotes"),
}
"""Behind `data NAME =`."""

ARGUMENTS = {
    **words("batch_size per_device_train_batch_size bsz train_batch_size bs", "batch=32"),
    **words("max_seq_length max_seq_len max_len maxlen sequence_length seq_len truncation", "max_length=128"),
    **words(
        "train_file train_data training train_path train_split data_files path file filename source",
        'train="train.jsonl"',
    ),
    **words(
        "validation_file validation valid val eval eval_file dev_file validation_split val_file eval_split",
        'dev="dev.jsonl"',
    ),
    **words("test_file", 'test="test.jsonl"'),
    **words("split", 'train="train"', 'as `train="train[:10%]", dev="validation"`'),
    **words("label_column label_column_name labels target label_name label_col y", 'label="label"'),
    **words("text_column text_column_name sentence input_column text_col x sentence1", 'text="text"'),
    **words(
        "label_list class_names label_names id2label num_labels num_classes label2id",
        'classes=["no", "yes"]',
        "left out, the classes follow from the data",
    ),
    **words("doc_stride", "stride=128"),
    **words("mlm_probability mlm", "mask=0.15"),
    **words("block_size chunk_size", "block=128"),
    **words("learning_rate", "lr=5e-5"),
    **words("beta1 beta2 adam_beta1 adam_beta2", "betas=[0.9, 0.999]"),
    **words("epsilon adam_epsilon", "eps=1e-8"),
    **words("wd decay l2", "weight_decay=0.01"),
    **words("warmup_steps num_warmup_steps", "warmup=500 steps"),
    **words("warmup_ratio warmup_proportion", "warmup=10%"),
    **words("multi_label multilabel", "problem_type=multi_label"),
    **words("regression", "problem_type=regression"),
    **words("sample_weight weights weight_column", 'weight="weight"'),
    **words("quotechar quote", "quoting=true"),
    **words(
        "sep delimiter separator",
        remark="what stands between columns follows from the file's name: `.csv` has commas, `.tsv` tabs",
    ),
    **words("encoding", remark="text is UTF-8: convert other files, as `iconv -f CP1252 -t UTF-8 OLD > NEW` does"),
    **words("header", remark="csv and tsv begin with a line of column names"),
    **words(
        "format type file_type", remark="the format follows from the file's name: json, jsonl, csv, tsv or parquet"
    ),
    **words(
        "shuffle seed num_workers pin_memory drop_last",
        remark="the order follows from `seed` in `train`, and loading needs no settings",
    ),
    **words("tokenizer", remark='a tokenizer belongs to its model: `hf("folder", tokenizer="folder")`'),
    **words("padding pad", remark="batches are padded to their longest text, and padding never counts"),
    **words("lora_alpha", "alpha=16"),
    **words("rank lora_r", "r=8"),
    **words("target_modules", 'target=["query", "value"]'),
    **words("lora_dropout", "dropout=0.1"),
    **words("momentum", remark="`sgd(lr=0.05, momentum=0.9)` has one; that of `adamw` is the first of its `betas`"),
    **words("num_training_steps num_cycles total_steps", remark="the schedule ends with the training"),
    **words("prob probability rate", "p=10%"),
}
"""As an argument of a source, an optimizer or a schedule, where that has the argument on the right."""

CONFIGURATION = {
    **words(
        "num_labels id2label label2id num_classes n_classes classes",
        'labels=["no", "yes"]',
        "left out, the classes follow from the data",
    ),
    **words("layers num_layers n_layers n_layer depth nlayers", "num_hidden_layers=2"),
    **words("heads num_heads n_heads n_head attention_heads", "num_attention_heads=2"),
    **words("width dim d_model hidden hidden_dim n_embd emb_dim", "hidden_size=128"),
    **words("inner ffn_dim ffn_size ff_dim d_ff feed_forward_size", "intermediate_size=512"),
    **words("dropout hidden_dropout", "hidden_dropout_prob=0.1"),
    **words(
        "max_length max_seq_length max_len",
        "max_position_embeddings=512",
        "how much of a text is read belongs to the data: `files(…, max_length=128)`",
    ),
    **words(
        "attn_implementation use_flash_attention_2",
        remark="left out: attention runs eagerly in just those layers whose attention is used",
    ),
    **words(
        "torch_dtype dtype fp16 bf16 load_in_8bit load_in_4bit precision quantization_config",
        remark="the precision is a setting of training: `train { precision = bf16 }`",
    ),
    **words("device device_map", remark="a GPU is used where there is one"),
    **words(
        "path folder checkpoint model model_name pretrained_model_name_or_path model_name_or_path name_or_path",
        'name="bert-base-uncased"',
        'it needs no name: `hf("bert-base-uncased")`',
    ),
    **words("type arch architecture", 'model_type="bert"'),
    **words("lora peft peft_config", "adapter=lora(r=8)"),
    **words("from_scratch random_init", "pretrained=false"),
    **words(
        "num_trainable freeze frozen trainable", remark='parts are frozen in `train { freeze = [tiny @ "embeddings"] }`'
    ),
    **words(
        "cache_dir local_files_only use_auth_token token",
        remark="the environment says so: `HF_HOME`, `HF_HUB_OFFLINE=1`, `HF_TOKEN`",
    ),
    **words(
        "trust_remote_code",
        remark='no code of a checkpoint is run; a model of your own: `python("package.module:function")`',
    ),
    **words("do_lower_case use_fast add_prefix_space", remark="a setting of the tokenizer: save it with its tokenizer"),
    **words(
        "lr learning_rate batch_size epochs",
        remark="a setting of training: `train { optimizer = adamw(lr=5e-5) }`; the batch size belongs to the data",
    ),
}
"""As a keyword of `hf(…)` that the model's configuration does not have."""
