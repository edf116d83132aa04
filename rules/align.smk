# The method: SFT, SteerLM as iteration 0, then the loop: sample, score, select, fine-tune.
# A {loop} is dpa itself or a method that shares its steps: rsf/<direction>, directional_dpo.


rule train_sft:
    input:
        demonstrations=of.sources(cfg.data.sft),
        base_model=of.made_or_given(cfg.base_model, "results/{experiment}/base_model"),
        code=code("train_sft"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/sft/policy"),
    log:
        "results/{experiment}/logs/train_sft.log",
    benchmark:
        "results/{experiment}/benchmarks/train_sft.tsv"
    priority: CRITICAL
    threads: jobs.training_threads()
    resources:
        **jobs.training(8000),
    params:
        base_model=of.base_model_flags,
        demonstrations=repeat("--demonstrations", map(section, cfg.data.sft)),
        models=section(cfg.models),
        schedule=section(cfg.sft.schedule),
        trainer=section(cfg.trainer),
        seed=of.base_seed,
    message:
        "Training the SFT policy"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_sft {params.base_model:q} {params.demonstrations:q}"
            " --models {params.models:q}"
            " --schedule {params.schedule:q} --trainer {params.trainer:q} --seed {params.seed}"
            " --output {output.policy:q}"
        )


rule compute_conditions:
    input:
        annotations=shard_files(
            "results/{experiment}/annotations{member}/{shard}.jsonl", cfg.shards, layout.members
        ),
        prompts="results/{experiment}/data/prompts/d2.jsonl",
        code=code("compute_conditions"),
    output:
        conditions="results/{experiment}/steerlm/conditions.json",
    log:
        "results/{experiment}/logs/compute_conditions.log",
    benchmark:
        "results/{experiment}/benchmarks/compute_conditions.tsv"
    priority: CRITICAL
    localrule: True
    resources:
        mem_mb=jobs.memory(4000),
        runtime=30,
    params:
        annotations=input_flags("annotations"),
        directions=section(cfg.directions),
        top_fraction=cfg.steerlm.top_fraction,
        curve_points=cfg.steerlm.curve_points,
        members=len(layout.members),
        seed=of.base_seed,
    message:
        "Reading off which ratings SteerLM can be asked for"
    shell:
        "python -m scripts.compute_conditions {params.annotations:q} --prompts {input.prompts:q}"
        " --directions {params.directions:q} --top-fraction {params.top_fraction}"
        " --curve-points {params.curve_points} --members {params.members} --seed {params.seed}"
        " --output {output.conditions:q} > {log} 2>&1"


rule train_initial_policy:
    input:
        annotations=shard_files("results/{experiment}/annotations/{shard}.jsonl", cfg.shards),
        prompts=["results/{experiment}/data/prompts/d2.jsonl"],
        sft=of.made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        code=code("train_steerlm"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/dpa/iter0/policy"),
    log:
        "results/{experiment}/logs/train_initial_policy.log",
    benchmark:
        "results/{experiment}/benchmarks/train_initial_policy.tsv"
    priority: CRITICAL
    threads: jobs.training_threads()
    resources:
        **jobs.training(8000),
    params:
        policy=of.policy_flags,
        annotations=input_flags("annotations"),
        prompts=input_flags("prompts"),
        objectives=section(cfg.objectives),
        models=section(cfg.models),
        schedule=section(cfg.steerlm.schedule),
        trainer=section(cfg.trainer),
        seed=of.base_seed,
    message:
        "Training iteration 0: SteerLM on D2"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_steerlm {params.policy:q} {params.annotations:q}"
            " {params.prompts:q} --objectives {params.objectives:q}"
            " --models {params.models:q}"
            " --schedule {params.schedule:q} --trainer {params.trainer:q} --seed {params.seed}"
            " --output {output.policy:q}"
        )


rule sample_responses:
    input:
        policy=of.sampled_policy,
        prompts=of.prompt_half,
        conditions=of.iteration_conditions,
        code=code("sample_responses"),
        preflight=PREFLIGHT,
    output:
        sampled="results/{experiment}/{loop}/iter{iteration}/sampled/{shard}.jsonl",
    log:
        "results/{experiment}/logs/sample_responses/{loop}/iter{iteration}-{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/sample_responses/{loop}/iter{iteration}-{shard}.tsv"
    priority: CRITICAL
    threads: cfg.threads
    resources:
        **jobs.on_one_gpu(4000, 48000),
        runtime=720,
    params:
        directions=of.loop_distribution,
        objective_names=OBJECTIVE_NAMES,
        directions_per_prompt=cfg.dpa.directions_per_prompt,
        responses_per_direction=cfg.dpa.responses_per_direction,
        policy=of.sampled_policy_flags,
        conditions=of.condition_flags,
        models=section(cfg.models),
        sampling=section(cfg.sampling),
        shards=cfg.shards,
        seed=of.base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: sampling responses, shard {wildcards.shard}"
    shell:
        "python -m scripts.sample_responses {params.policy:q} --prompts {input.prompts:q}"
        " --iteration {wildcards.iteration} --seed {params.seed}"
        " --directions {params.directions:q} --objective-names {params.objective_names:q}"
        " --directions-per-prompt {params.directions_per_prompt}"
        " --responses-per-direction {params.responses_per_direction} {params.conditions:q}"
        " --models {params.models:q}"
        " --sampling {params.sampling:q} --shard {wildcards.shard} --shards {params.shards}"
        " --output {output.sampled:q} > {log} 2>&1"


rule score_responses:
    input:
        sampled="results/{experiment}/{loop}/iter{iteration}/sampled/{shard}.jsonl",
        prompts=of.prompt_half,
        model=of.loop_reward_model,
        code=code("score_responses"),
        preflight=PREFLIGHT,
    output:
        scored="results/{experiment}/{loop}/iter{iteration}/scored{member}/{shard}.jsonl",
    log:
        "results/{experiment}/logs/score_responses{member}/{loop}/iter{iteration}-{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/score_responses{member}/{loop}/iter{iteration}-{shard}.tsv"
    priority: CRITICAL
    threads: cfg.threads
    resources:
        **jobs.on_one_gpu(4000, 32000),
        runtime=720,
    params:
        model=of.loop_scorer_flags,
        objectives=section(cfg.objectives),
        tokens=cfg.reward_model.tokens_per_batch,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: scoring responses, shard {wildcards.shard}"
    shell:
        "python -m scripts.score_responses {params.model:q} --samples {input.sampled:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q}"
        " --tokens-per-batch {params.tokens} --output {output.scored:q} > {log} 2>&1"


rule select_responses:
    input:
        scored=of.candidates,
        annotations=of.replay_annotations,
        prompts=of.prompt_half,
        code=code("select_responses"),
    output:
        selected="results/{experiment}/{loop}/iter{iteration}/selected.jsonl",
    log:
        "results/{experiment}/logs/select_responses/{loop}/iter{iteration}.log",
    benchmark:
        "results/{experiment}/benchmarks/select_responses/{loop}/iter{iteration}.tsv"
    priority: CRITICAL
    resources:
        **jobs.on_cpu(2000),
        runtime=60,
    params:
        scored=input_flags("scored"),
        annotations=input_flags("annotations"),
        directions=of.loop_distribution,
        directions_per_prompt=cfg.dpa.directions_per_prompt,
        responses_per_direction=cfg.dpa.responses_per_direction,
        shared=of.shared_flag,
        distinct=of.distinct_flag,
        replay_fraction=cfg.dpa.replay_fraction,
        pessimism=of.pessimism_flags,
        candidates=of.candidates_flags,
        seed=of.base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: selecting each direction's best response"
    shell:
        "python -m scripts.select_responses {params.scored:q} {params.annotations:q}"
        " --prompts {input.prompts:q} --iteration {wildcards.iteration} --seed {params.seed}"
        " --directions {params.directions:q}"
        " --directions-per-prompt {params.directions_per_prompt}"
        " --responses-per-direction {params.responses_per_direction}"
        " --replay-fraction {params.replay_fraction} {params.shared:q} {params.distinct:q} {params.pessimism:q}"
        " {params.candidates:q} --output {output.selected:q} > {log} 2>&1"


rule finetune_policy:
    input:
        selected="results/{experiment}/{loop}/iter{iteration}/selected.jsonl",
        sft=of.made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        code=code("finetune_policy"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/{loop}/iter{iteration}/policy"),
    log:
        "results/{experiment}/logs/finetune_policy/{loop}/iter{iteration}.log",
    benchmark:
        "results/{experiment}/benchmarks/finetune_policy/{loop}/iter{iteration}.tsv"
    wildcard_constraints:
        loop=loops_trained_by("finetune_policy"),
        iteration=r"[1-9]\d*",  # iteration 0 is train_initial_policy's
    priority: CRITICAL
    threads: jobs.training_threads()
    resources:
        **jobs.training(8000),
    params:
        policy=of.policy_flags,
        objectives=section(cfg.objectives),
        directions=of.loop_distribution,
        replay_prompt=cfg.dpa.replay_prompt,
        models=section(cfg.models),
        schedule=of.loop_schedule,
        trainer=section(cfg.trainer),
        seed=of.base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: fine-tuning from the SFT policy"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.finetune_policy {params.policy:q} --selected {input.selected:q}"
            " --objectives {params.objectives:q} --directions {params.directions:q}"
            " --replay-prompt {params.replay_prompt} --models {params.models:q}"
            " --iteration {wildcards.iteration} --schedule {params.schedule:q} --trainer {params.trainer:q}"
            " --seed {params.seed} --output {output.policy:q}"
        )
