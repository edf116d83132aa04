# The methods that DPA is compared with.


rule train_steerlm:
    input:
        annotations=shard_files("results/{experiment}/annotations/{shard}.jsonl"),
        d1="results/{experiment}/data/prompts/d1.jsonl",
        d2="results/{experiment}/data/prompts/d2.jsonl",
        sft=made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        code=code("train_steerlm"),
    output:
        policy=directory("results/{experiment}/steerlm/policy"),
    log:
        "results/{experiment}/logs/train_steerlm.log",
    benchmark:
        "results/{experiment}/benchmarks/train_steerlm.tsv"
    threads: cfg.threads
    resources:
        mem_mb=8000,
        runtime=720,
    params:
        sft=sft_flags(),
        annotations=lambda wildcards, input: repeat_flag("--annotations", input.annotations),
        objectives=OBJECTIVES,
        schedule=as_json(cfg.steerlm.training),
        training=as_json(cfg.training),
        seed=cfg.seed,
    message:
        "Training SteerLM on all training prompts"
    shell:
        "python -m scripts.train_steerlm {params.sft:q} {params.annotations:q}"
        " --prompts {input.d1:q} --prompts {input.d2:q} --objectives {params.objectives:q}"
        " --schedule {params.schedule:q} --training {params.training:q} --seed {params.seed}"
        " --output {output.policy:q} 2>&1 | tee {log}"


rule train_dpo:
    input:
        ratings="results/{experiment}/data/ratings.jsonl",
        d1="results/{experiment}/data/prompts/d1.jsonl",
        d2="results/{experiment}/data/prompts/d2.jsonl",
        sft=made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        code=code("train_dpo"),
    output:
        policy=directory("results/{experiment}/dpo/policy"),
    log:
        "results/{experiment}/logs/train_dpo.log",
    benchmark:
        "results/{experiment}/benchmarks/train_dpo.tsv"
    threads: cfg.threads
    resources:
        mem_mb=8000,
        runtime=720,
    params:
        sft=sft_flags(),
        dataset=cfg.data.original_responses,
        beta=cfg.dpo.beta,
        schedule=as_json(cfg.dpo.training),
        training=as_json(cfg.training),
        seed=cfg.seed,
    message:
        "Training DPO on the ratings' preference pairs"
    shell:
        "python -m scripts.train_dpo {params.sft:q} --ratings {input.ratings:q}"
        " --prompts {input.d1:q} --prompts {input.d2:q} --dataset {params.dataset:q}"
        " --beta {params.beta}"
        " --schedule {params.schedule:q} --training {params.training:q} --seed {params.seed}"
        " --output {output.policy:q} 2>&1 | tee {log}"
