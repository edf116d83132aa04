# The method: SFT, SteerLM as iteration 0, then the loop: sample, score, select, fine-tune.
# A {loop} is dpa itself or a method that shares its steps: rsf/<direction>, directional_dpo.


rule train_sft:
    input:
        demonstrations=local_sources(cfg.data.sft),
        base_model=made_or_given(cfg.base_model, "results/{experiment}/base_model"),
        code=code("train_sft"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/sft/policy"),
    log:
        "results/{experiment}/logs/train_sft.log",
    benchmark:
        "results/{experiment}/benchmarks/train_sft.tsv"
    priority: CRITICAL
    threads: training_threads()
    resources:
        **training_resources(8000),
        launcher=training_launcher(),
        runtime=720,
    params:
        base_model=base_model_flags(),
        demonstrations=repeat_flag("--demonstrations", map(as_json, cfg.data.sft)),
        schedule=as_json(cfg.sft.training),
        training=as_json(cfg.training),
        seed=base_seed,
    message:
        "Training the SFT policy"
    shell:
        "{resources.launcher} -m scripts.train_sft {params.base_model:q} {params.demonstrations:q}"
        " --schedule {params.schedule:q} --training {params.training:q} --seed {params.seed}"
        " --output {output.policy:q} 2>&1 | tee {log}"


rule compute_conditions:
    input:
        annotations=shard_files("results/{experiment}/annotations/{shard}.jsonl"),
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
        mem_mb=memory(4000),
        runtime=30,
    params:
        annotations=lambda wildcards, input: repeat_flag("--annotations", input.annotations),
        directions=as_json(cfg.directions),
        top_fraction=cfg.steerlm.top_fraction,
        curve_points=cfg.steerlm.curve_points,
        seed=base_seed,
    message:
        "Reading off which ratings SteerLM can be asked for"
    shell:
        "python -m scripts.compute_conditions {params.annotations:q} --prompts {input.prompts:q}"
        " --directions {params.directions:q} --top-fraction {params.top_fraction}"
        " --curve-points {params.curve_points} --seed {params.seed}"
        " --output {output.conditions:q} 2>&1 | tee {log}"


rule train_initial_policy:
    input:
        annotations=shard_files("results/{experiment}/annotations/{shard}.jsonl"),
        prompts="results/{experiment}/data/prompts/d2.jsonl",
        sft=made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        code=code("train_steerlm"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/dpa/iter0/policy"),
    log:
        "results/{experiment}/logs/train_initial_policy.log",
    benchmark:
        "results/{experiment}/benchmarks/train_initial_policy.tsv"
    priority: CRITICAL
    threads: training_threads()
    resources:
        **training_resources(8000),
        launcher=training_launcher(),
        runtime=720,
    params:
        sft=sft_flags(),
        annotations=lambda wildcards, input: repeat_flag("--annotations", input.annotations),
        objectives=OBJECTIVES,
        schedule=as_json(cfg.steerlm.training),
        training=as_json(cfg.training),
        seed=base_seed,
    message:
        "Training iteration 0: SteerLM on D2"
    shell:
        "{resources.launcher} -m scripts.train_steerlm {params.sft:q} {params.annotations:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q}"
        " --schedule {params.schedule:q} --training {params.training:q} --seed {params.seed}"
        " --output {output.policy:q} 2>&1 | tee {log}"


rule sample_responses:
    input:
        policy=sampled_policy,
        prompts=prompt_half,
        conditions=iteration_conditions,
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
        gpu=GPU,
        cpus_per_gpu=cfg.compute.cpus_per_gpu,
        mem_mb=memory(4000, on_gpu=48000),
        runtime=720,
    params:
        directions=loop_law,
        objectives=OBJECTIVES,
        directions_per_prompt=cfg.dpa.directions_per_prompt,
        responses_per_direction=cfg.dpa.responses_per_direction,
        policy=sampled_policy_flags,
        conditions=condition_flags,
        sampling=as_json(cfg.sampling),
        shards=cfg.shards,
        seed=base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: sampling responses, shard {wildcards.shard}"
    shell:
        "python -m scripts.sample_responses {params.policy:q} --prompts {input.prompts:q}"
        " --iteration {wildcards.iteration} --seed {params.seed}"
        " --directions {params.directions:q} --objectives {params.objectives:q}"
        " --directions-per-prompt {params.directions_per_prompt}"
        " --responses-per-direction {params.responses_per_direction} {params.conditions:q}"
        " --sampling {params.sampling:q} --shard {wildcards.shard} --shards {params.shards}"
        " --output {output.sampled:q} 2>&1 | tee {log}"


rule score_responses:
    input:
        sampled="results/{experiment}/{loop}/iter{iteration}/sampled/{shard}.jsonl",
        prompts=prompt_half,
        model=made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
        code=code("score_responses"),
        preflight=PREFLIGHT,
    output:
        scored="results/{experiment}/{loop}/iter{iteration}/scored/{shard}.jsonl",
    log:
        "results/{experiment}/logs/score_responses/{loop}/iter{iteration}-{shard}.log",
    benchmark:
        "results/{experiment}/benchmarks/score_responses/{loop}/iter{iteration}-{shard}.tsv"
    priority: CRITICAL
    threads: cfg.threads
    resources:
        gpu=GPU,
        cpus_per_gpu=cfg.compute.cpus_per_gpu,
        mem_mb=memory(4000, on_gpu=32000),
        runtime=720,
    params:
        model=scorer_flags(),
        objectives=as_json(cfg.objectives),
        tokens=cfg.reward_model.tokens_per_batch,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: scoring responses, shard {wildcards.shard}"
    shell:
        "python -m scripts.score_responses {params.model:q} --input {input.sampled:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q}"
        " --tokens-per-batch {params.tokens} --output {output.scored:q} 2>&1 | tee {log}"


rule select_responses:
    input:
        scored=shard_files("results/{experiment}/{loop}/iter{iteration}/scored/{shard}.jsonl"),
        annotations=shard_files("results/{experiment}/annotations/{shard}.jsonl"),
        prompts=prompt_half,
        code=code("select_responses"),
    output:
        selected="results/{experiment}/{loop}/iter{iteration}/selected.jsonl",
    log:
        "results/{experiment}/logs/select_responses/{loop}/iter{iteration}.log",
    benchmark:
        "results/{experiment}/benchmarks/select_responses/{loop}/iter{iteration}.tsv"
    priority: CRITICAL
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        scored=lambda wildcards, input: repeat_flag("--scored", input.scored),
        annotations=lambda wildcards, input: repeat_flag("--annotations", input.annotations),
        directions=loop_law,
        directions_per_prompt=cfg.dpa.directions_per_prompt,
        responses_per_direction=cfg.dpa.responses_per_direction,
        shared=lambda wildcards: ["--shared"] if samples_steerlm(wildcards) else [],
        replay_fraction=cfg.dpa.replay_fraction,
        seed=base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: selecting each direction's best response"
    shell:
        "python -m scripts.select_responses {params.scored:q} {params.annotations:q}"
        " --prompts {input.prompts:q} --iteration {wildcards.iteration} --seed {params.seed}"
        " --directions {params.directions:q}"
        " --directions-per-prompt {params.directions_per_prompt}"
        " --responses-per-direction {params.responses_per_direction}"
        " --replay-fraction {params.replay_fraction} {params.shared:q} --output {output.selected:q} 2>&1 | tee {log}"


rule finetune_policy:
    input:
        selected="results/{experiment}/{loop}/iter{iteration}/selected.jsonl",
        sft=made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        code=code("finetune_policy"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/{loop}/iter{iteration}/policy"),
    log:
        "results/{experiment}/logs/finetune_policy/{loop}/iter{iteration}.log",
    benchmark:
        "results/{experiment}/benchmarks/finetune_policy/{loop}/iter{iteration}.tsv"
    wildcard_constraints:
        loop=r"dpa|rsf/[\d_-]+",  # directional_dpo trains otherwise
        iteration=r"[1-9]\d*",  # iteration 0 is train_initial_policy's
    priority: CRITICAL
    threads: training_threads()
    resources:
        **training_resources(8000),
        launcher=training_launcher(),
        runtime=720,
    params:
        sft=sft_flags(),
        objectives=as_json(cfg.objectives),
        directions=loop_law,
        schedule=lambda wildcards: as_json(loop_section(wildcards).training),
        training=as_json(cfg.training),
        seed=base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: fine-tuning from the SFT policy"
    shell:
        "{resources.launcher} -m scripts.finetune_policy {params.sft:q} --selected {input.selected:q}"
        " --objectives {params.objectives:q} --directions {params.directions:q}"
        " --iteration {wildcards.iteration} --schedule {params.schedule:q} --training {params.training:q}"
        " --seed {params.seed} --output {output.policy:q} 2>&1 | tee {log}"
