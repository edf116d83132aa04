# The methods that DPA is compared with.


use rule train_initial_policy as train_steerlm with:
    input:
        annotations=shard_files("results/{experiment}/annotations/{shard}.jsonl", cfg.shards),
        prompts=expand("results/{{experiment}}/data/prompts/{half}.jsonl", half=["d1", "d2"]),
        sft=of.made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        code=code("train_steerlm"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/steerlm/policy"),
    log:
        "results/{experiment}/logs/train_steerlm.log",
    benchmark:
        "results/{experiment}/benchmarks/train_steerlm.tsv"
    priority: 0
    message:
        "Training SteerLM on all training prompts"


rule pair_ratings:
    input:
        ratings="results/{experiment}/data/ratings.jsonl",
        d1="results/{experiment}/data/prompts/d1.jsonl",
        d2="results/{experiment}/data/prompts/d2.jsonl",
        code=code("pair_ratings"),
    output:
        pairs="results/{experiment}/dpo/pairs.jsonl",
    log:
        "results/{experiment}/logs/pair_ratings.log",
    benchmark:
        "results/{experiment}/benchmarks/pair_ratings.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(4000),
        runtime=30,
    params:
        dataset=cfg.data.original_responses,
        seed=of.base_seed,
    message:
        "Pairing rated responses for DPO"
    shell:
        "python -m scripts.pair_ratings --ratings {input.ratings:q} --prompts {input.d1:q}"
        " --prompts {input.d2:q} --dataset {params.dataset:q} --seed {params.seed}"
        " --output {output.pairs:q} > {log} 2>&1"


rule train_dpo:
    input:
        pairs="results/{experiment}/dpo/pairs.jsonl",
        sft=of.made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        code=code("train_dpo"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/dpo/policy"),
    log:
        "results/{experiment}/logs/train_dpo.log",
    benchmark:
        "results/{experiment}/benchmarks/train_dpo.tsv"
    threads: jobs.training_threads()
    resources:
        **jobs.training(8000),
    params:
        policy=of.policy_flags,
        objectives=section(cfg.objectives),
        beta=cfg.dpo.recipes[cfg.dpo.recipe].beta,
        models=section(cfg.models),
        schedule=section(cfg.dpo.recipes[cfg.dpo.recipe].schedule),
        trainer=section(cfg.trainer),
        seed=of.base_seed,
    message:
        f"Training DPO on rated pairs, recipe {cfg.dpo.recipe}"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_dpo {params.policy:q} --pairs {input.pairs:q}"
            " --objectives {params.objectives:q} --beta {params.beta}"
            " --models {params.models:q}"
            " --schedule {params.schedule:q} --trainer {params.trainer:q} --seed {params.seed}"
            " --output {output.policy:q}"
        )


rule select_pairs:
    input:
        scored=shard_files(
            "results/{experiment}/{loop}/iter{iteration}/scored{member}/{shard}.jsonl",
            cfg.shards,
            layout.members,
        ),
        prompts=of.prompt_half,
        code=code("select_pairs"),
    output:
        pairs="results/{experiment}/{loop}/iter{iteration}/pairs.jsonl",
    log:
        "results/{experiment}/logs/select_pairs/{loop}/iter{iteration}.log",
    benchmark:
        "results/{experiment}/benchmarks/select_pairs/{loop}/iter{iteration}.tsv"
    wildcard_constraints:
        loop=loops_trained_by("train_directional_dpo"),
    resources:
        **jobs.on_cpu(2000),
        runtime=60,
    params:
        scored=input_flags("scored"),
        directions=of.loop_distribution,
        directions_per_prompt=cfg.dpa.directions_per_prompt,
        responses_per_direction=cfg.dpa.responses_per_direction,
        pessimism=of.pessimism_flags,
        seed=of.base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: pairing best and worst responses"
    shell:
        "python -m scripts.select_pairs {params.scored:q} --prompts {input.prompts:q}"
        " --iteration {wildcards.iteration} --seed {params.seed}"
        " --directions {params.directions:q}"
        " --directions-per-prompt {params.directions_per_prompt}"
        " --responses-per-direction {params.responses_per_direction}"
        " {params.pessimism:q} --output {output.pairs:q} > {log} 2>&1"


rule train_directional_dpo:
    input:
        pairs="results/{experiment}/{loop}/iter{iteration}/pairs.jsonl",
        policy=of.sampled_policy,
        code=code("train_dpo"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/{loop}/iter{iteration}/policy"),
    log:
        "results/{experiment}/logs/train_directional_dpo/{loop}/iter{iteration}.log",
    benchmark:
        "results/{experiment}/benchmarks/train_directional_dpo/{loop}/iter{iteration}.tsv"
    wildcard_constraints:
        loop=loops_trained_by("train_directional_dpo"),
    threads: jobs.training_threads()
    resources:
        **jobs.training(8000),
    params:
        policy=of.sampled_policy_flags,
        objectives=section(cfg.objectives),
        directions=of.loop_distribution,
        beta=cfg.directional_dpo.beta,
        models=section(cfg.models),
        schedule=section(cfg.directional_dpo.schedule),
        trainer=section(cfg.trainer),
        seed=of.base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: DPO under directions"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_dpo {params.policy:q} --pairs {input.pairs:q}"
            " --objectives {params.objectives:q} --directions {params.directions:q}"
            " --iteration {wildcards.iteration}"
            " --models {params.models:q}"
            " --beta {params.beta} --schedule {params.schedule:q} --trainer {params.trainer:q}"
            " --seed {params.seed} --output {output.policy:q}"
        )


rule prepare_ric:
    input:
        annotations=shard_files(
            "results/{experiment}/annotations{member}/{shard}.jsonl", cfg.shards, layout.members
        ),
        d1="results/{experiment}/data/prompts/d1.jsonl",
        d2="results/{experiment}/data/prompts/d2.jsonl",
        code=code("prepare_ric"),
    output:
        originals="results/{experiment}/ric/originals.jsonl",
        ranges="results/{experiment}/ric/ranges.json",
    log:
        "results/{experiment}/logs/prepare_ric.log",
    benchmark:
        "results/{experiment}/benchmarks/prepare_ric.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(4000),
        runtime=30,
    params:
        annotations=input_flags("annotations"),
        directions=section(cfg.directions),
        members=len(layout.members),
        threshold=cfg.ric.threshold,
        originals=cfg.ric.originals,
        seed=of.base_seed,
    message:
        "Rewards-in-Context: keeping original responses"
    shell:
        "python -m scripts.prepare_ric {params.annotations:q} --prompts {input.d1:q}"
        " --prompts {input.d2:q} --directions {params.directions:q} --members {params.members}"
        " --threshold {params.threshold} --originals {params.originals} --seed {params.seed}"
        " --output {output.originals:q} --output-ranges {output.ranges:q} > {log} 2>&1"


rule reject_responses:
    input:
        scored=shard_files(
            "results/{experiment}/{loop}/iter{iteration}/scored{member}/{shard}.jsonl",
            cfg.shards,
            layout.members,
        ),
        prompts=of.prompt_half,
        code=code("reject_responses"),
    output:
        kept="results/{experiment}/{loop}/iter{iteration}/kept.jsonl",
    log:
        "results/{experiment}/logs/reject_responses/{loop}/iter{iteration}.log",
    benchmark:
        "results/{experiment}/benchmarks/reject_responses/{loop}/iter{iteration}.tsv"
    wildcard_constraints:
        loop=loops_trained_by("train_ric"),
    resources:
        **jobs.on_cpu(2000),
        runtime=60,
    params:
        scored=input_flags("scored"),
        directions=of.loop_distribution,
        members=len(layout.members),
        threshold=cfg.ric.threshold,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: keeping responses that are good at something"
    shell:
        "python -m scripts.reject_responses {params.scored:q} --prompts {input.prompts:q}"
        " --directions {params.directions:q} --members {params.members}"
        " --threshold {params.threshold} --output {output.kept:q} > {log} 2>&1"


rule train_ric:
    input:
        annotations=of.kept_so_far,
        prompts=expand("results/{{experiment}}/data/prompts/{half}.jsonl", half=["d1", "d2"]),
        policy=of.sampled_policy,
        code=code("train_steerlm"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/{loop}/iter{iteration}/policy"),
    log:
        "results/{experiment}/logs/train_ric/{loop}/iter{iteration}.log",
    benchmark:
        "results/{experiment}/benchmarks/train_ric/{loop}/iter{iteration}.tsv"
    wildcard_constraints:
        loop=loops_trained_by("train_ric"),
    threads: jobs.training_threads()
    resources:
        **jobs.training(8000),
    params:
        policy=of.sampled_policy_flags,
        annotations=input_flags("annotations"),
        prompts=input_flags("prompts"),
        objectives=section(cfg.objectives),
        models=section(cfg.models),
        schedule=section(cfg.ric.schedule),
        trainer=section(cfg.trainer),
        seed=of.base_seed,
    message:
        "{wildcards.loop}, iteration {wildcards.iteration}: SFT on the rewards that responses got"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_steerlm {params.policy:q} {params.annotations:q}"
            " {params.prompts:q} --iteration {wildcards.iteration}"
            " --objectives {params.objectives:q} --models {params.models:q}"
            " --schedule {params.schedule:q} --trainer {params.trainer:q} --seed {params.seed}"
            " --output {output.policy:q}"
        )


rule train_ppo:
    input:
        d1="results/{experiment}/data/prompts/d1.jsonl",
        d2="results/{experiment}/data/prompts/d2.jsonl",
        sft=of.made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        model=of.made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
        code=code("train_ppo"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/ppo/{direction}/policy"),
        history="results/{experiment}/ppo/{direction}/history.csv",
    log:
        "results/{experiment}/logs/train_ppo/{direction}.log",
    benchmark:
        "results/{experiment}/benchmarks/train_ppo/{direction}.tsv"
    threads: jobs.training_threads()
    resources:
        **jobs.training(8000),
    params:
        policy=of.policy_flags,
        model=of.reward_model_flags,
        objectives=section(cfg.objectives),
        direction=of.fixed_direction,
        beta=cfg.ppo.beta,
        responses_per_prompt=cfg.ppo.responses_per_prompt,
        models=section(cfg.models),
        schedule=section(cfg.ppo.schedule),
        trainer=section(cfg.trainer),
        sampling=section(cfg.sampling),
        tokens=cfg.reward_model.tokens_per_batch,
        seed=of.base_seed,
    message:
        "Training the PPO row at direction {wildcards.direction}"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_ppo {params.policy:q} {params.model:q} --prompts {input.d1:q}"
            " --prompts {input.d2:q} --objectives {params.objectives:q}"
            " --direction={params.direction:q} --beta {params.beta}"
            " --responses-per-prompt {params.responses_per_prompt}"
            " --models {params.models:q}"
            " --schedule {params.schedule:q} --trainer {params.trainer:q}"
            " --sampling {params.sampling:q} --tokens-per-batch {params.tokens} --seed {params.seed}"
            " --output-history {output.history:q} --output {output.policy:q}"
        )


rule train_online_dpo:
    input:
        d1="results/{experiment}/data/prompts/d1.jsonl",
        d2="results/{experiment}/data/prompts/d2.jsonl",
        sft=of.made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        model=of.made_or_given(cfg.reward_model, "results/{experiment}/reward_model/model"),
        code=code("train_online_dpo"),
        preflight=PREFLIGHT,
    output:
        policy=directory("results/{experiment}/online_dpo/policy"),
        history="results/{experiment}/online_dpo/history.csv",
    log:
        "results/{experiment}/logs/train_online_dpo.log",
    benchmark:
        "results/{experiment}/benchmarks/train_online_dpo.tsv"
    threads: jobs.training_threads()
    resources:
        **jobs.training(8000),
    params:
        policy=of.policy_flags,
        model=of.reward_model_flags,
        objectives=section(cfg.objectives),
        directions=section(cfg.directions),
        beta=cfg.online_dpo.beta,
        contrast=flags.given("--contrast-beta", cfg.online_dpo.contrast_beta),
        models=section(cfg.models),
        schedule=section(cfg.online_dpo.schedule),
        trainer=section(cfg.trainer),
        sampling=section(cfg.sampling),
        tokens=cfg.reward_model.tokens_per_batch,
        seed=of.base_seed,
    message:
        "Training online DPO under drawn directions"
    shell:
        until_saved(
            "{resources.launcher} -m scripts.train_online_dpo {params.policy:q} {params.model:q}"
            " --prompts {input.d1:q} --prompts {input.d2:q} --objectives {params.objectives:q}"
            " --directions {params.directions:q} --beta {params.beta} {params.contrast:q}"
            " --models {params.models:q} --schedule {params.schedule:q}"
            " --trainer {params.trainer:q} --sampling {params.sampling:q}"
            " --tokens-per-batch {params.tokens} --seed {params.seed}"
            " --output-history {output.history:q} --output {output.policy:q}"
        )
