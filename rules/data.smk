# Raw data to ratings and prompts.


# Asks the hub, once for each repository; makes nothing of the experiment, so that it runs whenever
# it is asked for.
rule lock_revisions:
    input:
        code=code("lock_revisions"),
    log:
        f"results/{cfg.experiment}/logs/lock_revisions.log",
    localrule: True
    resources:
        mem_mb=jobs.memory(1000),
        runtime=10,
    params:
        repositories=hooks.unlocked_flags(layout),
        lock=LOCK_FILE,
    message:
        "Asking the hub for the commits of models and data sets"
    shell:
        "python -m scripts.lock_revisions {params.repositories:q} --lock-file {params.lock:q}"
        " > {log} 2>&1"


# Before everything expensive, once: a job that checks again would be one that Snakemake takes for the
# reason to run what depends on it, ancient input or not (it then loses sight of other reasons). So it
# has neither params nor code that change (its settings are a resource), and later runs check when
# they start (check_before_jobs). On GPUs it is a job with one: the node where Snakemake runs may have
# none.
rule preflight:
    output:
        report=f"{RESULTS}/preflight.json",
    log:
        f"results/{cfg.experiment}/logs/preflight.log",
    localrule: not cfg.compute.gpu
    resources:
        **jobs.on_one_gpu(4000, 16000),
        runtime=15,
        settings=flags.section_file([cfg, RESULTS, layout.trained_stages(), layout.policies()]),
    message:
        "Checking that everything is there for this run"
    shell:
        "python -m scripts.preflight --settings {resources.settings} --output {output.report:q}"
        " > {log} 2>&1"


if cfg.world is not None:

    rule make_quickstart_data:
        input:
            code=code("make_quickstart_data"),
        output:
            helpsteer_train="results/{experiment}/data/raw/helpsteer/train.jsonl",
            helpsteer_validation="results/{experiment}/data/raw/helpsteer/validation.jsonl",
            ultrafeedback="results/{experiment}/data/raw/ultrafeedback.jsonl",
            train_prefs="results/{experiment}/data/raw/ultrafeedback_binarized/train_prefs.jsonl",
            test_prefs="results/{experiment}/data/raw/ultrafeedback_binarized/test_prefs.jsonl",
            unseen="results/{experiment}/data/raw/unseen_prompts.jsonl",
            sft="results/{experiment}/data/raw/ultrachat.jsonl",
            pretraining="results/{experiment}/data/raw/pretraining.jsonl",
            alpacaeval="results/{experiment}/data/raw/alpaca_eval.json",
            rewardbench="results/{experiment}/data/raw/reward_bench.jsonl",
        log:
            "results/{experiment}/logs/make_quickstart_data.log",
        benchmark:
            "results/{experiment}/benchmarks/make_quickstart_data.tsv"
        resources:
            **jobs.on_cpu(1000),
            runtime=10,
        params:
            folder="results/{experiment}/data/raw",
            seed=of.base_seed,
            sizes=flags.world_sizes(layout),
        message:
            "Making the quickstart's world"
        shell:
            "python -m scripts.make_quickstart_data --seed {params.seed} {params.sizes:q}"
            " --output {params.folder:q} > {log} 2>&1"


rule prepare_data:
    input:
        ratings=of.sources(
            [s for r in cfg.data.ratings for s in (r.train, r.validation) if s is not None]
        ),
        prompts=of.sources(
            cfg.data.train_prompts, cfg.data.validation_prompts, cfg.data.unseen_prompts
        ),
        code=code("prepare_data"),
        preflight=PREFLIGHT,
    output:
        ratings="results/{experiment}/data/ratings.jsonl",
        d1="results/{experiment}/data/prompts/d1.jsonl",
        d2="results/{experiment}/data/prompts/d2.jsonl",
        validation="results/{experiment}/data/prompts/validation.jsonl",
    log:
        "results/{experiment}/logs/prepare_data.log",
    benchmark:
        "results/{experiment}/benchmarks/prepare_data.tsv"
    resources:
        **jobs.on_cpu(8000),
        runtime=60,
    params:
        data=section(cfg.data),
        judge=["--judge-share", cfg.judge_share] if cfg.judge_share else [],
        seed=of.base_seed,
    message:
        "Mapping ratings to 0-100 and splitting prompts into D1, D2 and validation"
    shell:
        "python -m scripts.prepare_data --data {params.data:q} {params.judge} --seed {params.seed}"
        " --output-ratings {output.ratings:q} --output-d1 {output.d1:q} --output-d2 {output.d2:q}"
        " --output-validation {output.validation:q} > {log} 2>&1"
