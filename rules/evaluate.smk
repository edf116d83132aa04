# Held-out prompts under every direction: the numbers of figure 4.


# The validation prompts (evaluation), or a benchmark's.
rule sample_evaluation:
    input:
        policy=of.evaluated_policy,
        conditions=of.evaluated_conditions,
        prompts=of.evaluated_prompts,
        code=code("sample_evaluation"),
        preflight=PREFLIGHT,
    output:
        sampled="results/{experiment}/{benchmark}/sampled/{policy}.jsonl",
    log:
        "results/{experiment}/logs/sample_evaluation/{benchmark}/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/sample_evaluation/{benchmark}/{policy}.tsv"
    wildcard_constraints:
        policy=r"(?!reward_soup|best_of_n)[a-z_]+(-\d+)?",
    threads: cfg.threads
    resources:
        **jobs.on_one_gpu(4000, 48000),
        runtime=720,
    params:
        steering=of.evaluation_flags,
        objective_names=OBJECTIVE_NAMES,
        responses=of.responses_per_prompt,
        models=section(cfg.models),
        sampling=of.evaluation_sampling,
        seed=of.base_seed,
    message:
        "{wildcards.benchmark}: sampling {wildcards.policy}"
    shell:
        "python -m scripts.sample_evaluation {params.steering:q} --prompts {input.prompts:q}"
        " --models {params.models:q} --objective-names {params.objective_names:q}"
        " --responses-per-prompt {params.responses} --sampling {params.sampling:q}"
        " --seed {params.seed} --output {output.sampled:q} > {log} 2>&1"


rule sample_soup:
    input:
        experts=of.soup_experts,
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        code=code("sample_soup"),
        preflight=PREFLIGHT,
    output:
        sampled="results/{experiment}/evaluation/sampled/reward_soup.jsonl",
    log:
        "results/{experiment}/logs/sample_soup.log",
    benchmark:
        "results/{experiment}/benchmarks/sample_soup.tsv"
    threads: cfg.threads
    resources:
        **jobs.on_one_gpu(8000, 64000),
        runtime=720,
    params:
        experts=input_flags("experts", "--expert"),
        expert_directions=section(layout.expert_directions),
        directions=section(cfg.directions),
        grid=json.dumps(layout.asked_grid),
        responses=cfg.evaluation.responses_per_prompt,
        models=section(cfg.models),
        sampling=of.sampling(cfg.evaluation.temperature),
        seed=of.base_seed,
    message:
        "Sampling Reward Soup on the validation prompts"
    shell:
        "python -m scripts.sample_soup {params.experts:q}"
        " --expert-directions {params.expert_directions:q} --directions {params.directions:q}"
        " --grid {params.grid:q} --prompts {input.prompts:q} --models {params.models:q}"
        " --responses-per-prompt {params.responses} --sampling {params.sampling:q}"
        " --seed {params.seed} --output {output.sampled:q} > {log} 2>&1"


# Another scorer of the same samples costs no sampling.
rule score_evaluation:
    input:
        sampled="results/{experiment}/evaluation/sampled/{policy}.jsonl",
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        model=of.evaluation_scorer,
        code=code("score_responses"),
        preflight=PREFLIGHT,
    output:
        scored="results/{experiment}/evaluation/scored_by/{scorer}/{policy}.jsonl",
    log:
        "results/{experiment}/logs/score_evaluation/{scorer}/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/score_evaluation/{scorer}/{policy}.tsv"
    threads: cfg.threads
    resources:
        **jobs.on_one_gpu(4000, 32000),
        runtime=720,
    params:
        model=of.evaluation_scorer_flags,
        objectives=of.scorer_objectives,
        tokens=cfg.reward_model.tokens_per_batch,
    message:
        "Evaluation: scoring {wildcards.policy} by {wildcards.scorer}"
    shell:
        "python -m scripts.score_responses {params.model:q} --samples {input.sampled:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q}"
        " --tokens-per-batch {params.tokens} --output {output.scored:q} > {log} 2>&1"


# Best of n: what it chooses among, scored by the reward model, and its choice for each direction.
use rule sample_evaluation as sample_candidates with:
    output:
        sampled="results/{experiment}/{benchmark}/candidates/sampled/{policy}.jsonl",
    log:
        "results/{experiment}/logs/sample_candidates/{benchmark}/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/sample_candidates/{benchmark}/{policy}.tsv"
    wildcard_constraints:
        benchmark="evaluation",
        policy=r"best_of_n_[a-z]+",
    message:
        "Evaluation: sampling what {wildcards.policy} chooses among"


use rule score_evaluation as score_candidates with:
    input:
        sampled="results/{experiment}/evaluation/candidates/sampled/{policy}.jsonl",
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        model=of.evaluation_scorer,
        code=code("score_responses"),
        preflight=PREFLIGHT,
    output:
        scored="results/{experiment}/evaluation/candidates/scored_by/{scorer}/{policy}.jsonl",
    log:
        "results/{experiment}/logs/score_candidates/{scorer}/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/score_candidates/{scorer}/{policy}.tsv"
    message:
        "Evaluation: scoring what {wildcards.policy} chooses among by {wildcards.scorer}"


rule choose_best:
    input:
        scored=shard_files(
            "results/{experiment}/evaluation/candidates/scored_by/reward_model{member}/{policy}.jsonl",
            1,
            layout.members,
        ),
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        code=code("choose_best"),
    output:
        sampled="results/{experiment}/evaluation/sampled/{policy}.jsonl",
    log:
        "results/{experiment}/logs/choose_best/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/choose_best/{policy}.tsv"
    wildcard_constraints:
        policy=r"best_of_n_[a-z]+",
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=30,
    params:
        scored=input_flags("scored"),
        directions=section(cfg.directions),
        grid=json.dumps(layout.asked_grid),
        samples=cfg.best_of_n.samples,
        pessimism=of.pessimism_flags,
    message:
        "Evaluation: choosing the best of each direction for {wildcards.policy}"
    shell:
        "python -m scripts.choose_best {params.scored:q} --prompts {input.prompts:q}"
        " --directions {params.directions:q} --grid {params.grid:q}"
        " --samples-per-answer {params.samples} {params.pessimism:q}"
        " --output {output.sampled:q} > {log} 2>&1"


rule average_scores:
    input:
        scored=shard_files(
            "results/{experiment}/evaluation/scored_by/reward_model{member}/{policy}.jsonl",
            1,
            layout.members,
        ),
        code=code("average_scores"),
    output:
        scored="results/{experiment}/evaluation/scored_by/members/{policy}.jsonl",
    log:
        "results/{experiment}/logs/average_scores/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/average_scores/{policy}.tsv"
    localrule: True
    resources:
        mem_mb=jobs.memory(1000),
        runtime=30,
    params:
        scored=input_flags("scored"),
    message:
        "Evaluation: averaging the scores of {wildcards.policy}"
    shell:
        "python -m scripts.average_scores {params.scored:q} --output {output.scored:q}"
        " > {log} 2>&1"


# How far an iteration has moved from the SFT policy, on the samples that are there.
rule measure_divergence:
    input:
        policy=of.evaluated_policy,
        reference=of.made_or_given(cfg.sft, "results/{experiment}/sft/policy"),
        sampled="results/{experiment}/evaluation/sampled/{policy}.jsonl",
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        code=code("measure_divergence"),
        preflight=PREFLIGHT,
    output:
        divergence="results/{experiment}/evaluation/divergence/{policy}.parquet",
    log:
        "results/{experiment}/logs/measure_divergence/{policy}.log",
    benchmark:
        "results/{experiment}/benchmarks/measure_divergence/{policy}.tsv"
    threads: cfg.threads
    resources:
        **jobs.on_one_gpu(4000, 48000),
        runtime=720,
    params:
        reference=of.reference_flags,
        objective_names=OBJECTIVE_NAMES,
        models=section(cfg.models),
        sampling=of.sampling(cfg.evaluation.temperature),
    message:
        "Evaluation: measuring how far {wildcards.policy} is from the SFT policy"
    shell:
        "python -m scripts.measure_divergence --policy {input.policy:q} {params.reference:q}"
        " --samples {input.sampled:q} --prompts {input.prompts:q}"
        " --objective-names {params.objective_names:q} --models {params.models:q}"
        " --sampling {params.sampling:q} --output {output.divergence:q} > {log} 2>&1"


rule collect_validation_rewards:
    input:
        scored=expand(
            "results/{{experiment}}/evaluation/scored_by/{scorer}/{policy}.jsonl",
            scorer=layout.shown_scorer,
            policy=layout.policies(),
        ),
        judged=expand(
            "results/{{experiment}}/evaluation/scored_by/judge/{policy}.jsonl",
            policy=layout.policies() if layout.has_judge else [],
        ),
        selector=expand(
            "results/{{experiment}}/{file}",
            file=layout.selector_scores(),
        ),
        prompts="results/{experiment}/data/prompts/validation.jsonl",
        code=code("collect_validation_rewards"),
    output:
        rewards="results/{experiment}/evaluation/validation_rewards.csv",
        by_prompt="results/{experiment}/evaluation/prompt_rewards.parquet",
    log:
        "results/{experiment}/logs/collect_validation_rewards.log",
    benchmark:
        "results/{experiment}/benchmarks/collect_validation_rewards.tsv"
    wildcard_constraints:
        experiment=ONE_SEED,
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=30,
    params:
        gold=["--gold", cfg.evaluation.gold] if cfg.evaluation.gold else [],
        scored=input_flags("scored"),
        judged=input_flags("judged"),
        trained=(
            ["--trained-directions", grid_size(cfg.evaluation.directions)]
            if cfg.evaluation.outside_degrees
            else []
        ),
        selector=input_flags("selector"),
        pessimism=(["--pessimism", section(cfg.dpa.pessimism)] if layout.selector_scores() else []),
        objectives=section(cfg.objectives),
        seed=of.base_seed,
    message:
        "Collecting the validation rewards of all policies"
    shell:
        "python -m scripts.collect_validation_rewards {params.scored:q} {params.judged:q}"
        " {params.selector:q} {params.pessimism:q} {params.gold:q} {params.trained:q}"
        " --prompts {input.prompts:q} --objectives {params.objectives:q} --seed {params.seed}"
        " --output-by-prompt {output.by_prompt:q} --output {output.rewards:q} > {log} 2>&1"


if layout.chooses:

    rule choose_iteration:
        input:
            rewards="results/{experiment}/evaluation/prompt_rewards.parquet",
            policies=expand(
                "results/{{experiment}}/dpa/iter{t}/policy", t=range(1, cfg.dpa.iterations + 1)
            ),
            code=code("choose_iteration"),
        output:
            chosen="results/{experiment}/dpa/chosen.json",
            policy=directory("results/{experiment}/dpa/chosen/policy"),
        log:
            "results/{experiment}/logs/choose_iteration.log",
        benchmark:
            "results/{experiment}/benchmarks/choose_iteration.tsv"
        localrule: True
        resources:
            mem_mb=jobs.memory(2000),
            runtime=30,
        params:
            objective_names=OBJECTIVE_NAMES,
            reference=REFERENCE,
            candidates=input_flags("policies", "--candidate"),
        message:
            "Choosing DPA's iteration by the judge"
        shell:
            "python -m scripts.choose_iteration --prompt-rewards {input.rewards:q}"
            " --objective-names {params.objective_names:q} --hypervolume-reference {params.reference}"
            " {params.candidates:q} --output {output.chosen:q} --output-policy {output.policy:q}"
            " > {log} 2>&1"

    # On the prompts that did not choose.
    rule make_chosen:
        input:
            rewards=files_of(RUNS, "evaluation/prompt_rewards.parquet"),
            chosen=files_of(RUNS, "dpa/chosen.json"),
            code=code("make_chosen"),
        output:
            multiext(f"{RESULTS}/tables/chosen.", "csv", "md", "tex"),
        log:
            f"{RESULTS}/logs/make_chosen.log",
        localrule: True
        resources:
            mem_mb=jobs.memory(2000),
            runtime=30,
        params:
            rewards=input_flags("rewards", "--prompt-rewards"),
            chosen=input_flags("chosen"),
            objective_names=OBJECTIVE_NAMES,
            reference=REFERENCE,
            folder=folder_of,
        message:
            "Making the table of the chosen iteration"
        shell:
            "python -m scripts.make_chosen {params.rewards:q} {params.chosen:q}"
            " --objective-names {params.objective_names:q} --hypervolume-reference {params.reference}"
            " --output-tables {params.folder:q} > {log} 2>&1"


if not isinstance(cfg.seed, int):

    # One table for all seeds, where a single seed has its own.
    rule collect_seeds:
        input:
            rewards=files_of(RUNS, "evaluation/validation_rewards.csv"),
            code=code("collect_seeds"),
        output:
            rewards=f"{RESULTS}/evaluation/validation_rewards.csv",
        log:
            f"{RESULTS}/logs/collect_seeds.log",
        localrule: True
        resources:
            mem_mb=jobs.memory(1000),
            runtime=10,
        params:
            rewards=input_flags("rewards"),
        message:
            "Collecting the validation rewards of all seeds"
        shell:
            "python -m scripts.collect_seeds {params.rewards:q} --output {output.rewards:q}"
            " > {log} 2>&1"


# Prints and fails; makes nothing, so that it runs whenever it is asked for.
rule check_quickstart:
    """Check that the quickstart shows what it claims."""
    input:
        rewards=files_of(RUNS, "evaluation/validation_rewards.csv"),
        annotations=files_of(RUNS, *shard_files("annotations/{shard}.jsonl", cfg.shards)),
        code=code("check_quickstart"),
    log:
        f"{RESULTS}/logs/check_quickstart.log",
    localrule: True
    resources:
        mem_mb=jobs.memory(2000),
        runtime=10,
    params:
        runs=repeat("--run", RUNS),
        reference=REFERENCE,
    message:
        "Checking that the run shows what the paper claims"
    shell:
        "python -m scripts.check_quickstart {params.runs:q}"
        " --hypervolume-reference {params.reference} 2>&1 | tee {log}"
