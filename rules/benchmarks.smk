# What the code is fast at (docs/measurements.md): nothing that an experiment needs. Each takes all
# cores, so that no two run at a time.


rule measure_scoring:
    input:
        benchmark=clone("benchmarks/measure_scoring.py"),
        harness=clone("benchmarks/harness.py"),
        code=code("score_responses"),
    output:
        report="results/benchmarks/measure_scoring.txt",
    log:
        "results/benchmarks/logs/measure_scoring.log",
    threads: os.cpu_count()
    resources:
        **jobs.on_one_gpu(4000, 64000),
        runtime=120,
    params:
        module="benchmarks.measure_scoring",
    message:
        "Measuring reward scoring"
    shell:
        "python -m {params.module} 2> {log} > {output.report:q}"


use rule measure_scoring as measure_sampling with:
    input:
        benchmark=clone("benchmarks/measure_sampling.py"),
        harness=clone("benchmarks/harness.py"),
        code=code("sample_responses"),
    output:
        report="results/benchmarks/measure_sampling.txt",
    log:
        "results/benchmarks/logs/measure_sampling.log",
    params:
        module="benchmarks.measure_sampling",
    message:
        "Measuring sampling"


use rule measure_scoring as measure_training with:
    input:
        benchmark=clone("benchmarks/measure_training.py"),
        harness=clone("benchmarks/harness.py"),
        code=code("finetune_policy"),
    output:
        report="results/benchmarks/measure_training.txt",
    log:
        "results/benchmarks/logs/measure_training.log",
    params:
        module="benchmarks.measure_training",
    message:
        "Measuring fine-tuning"


use rule measure_scoring as measure_startup with:
    input:
        benchmark=clone("benchmarks/measure_startup.py"),
        harness=clone("benchmarks/harness.py"),
        startup=clone("dpa/runtime/startup.py"),
    output:
        report="results/benchmarks/measure_startup.txt",
    log:
        "results/benchmarks/logs/measure_startup.log",
    resources:
        **jobs.on_cpu(4000),
        runtime=60,
    params:
        module="benchmarks.measure_startup",
    message:
        "Measuring how long scripts take to start"


use rule measure_scoring as measure_selection with:
    input:
        benchmark=clone("benchmarks/measure_selection.py"),
        harness=clone("benchmarks/harness.py"),
        code=code("select_responses"),
    output:
        report="results/benchmarks/measure_selection.txt",
    log:
        "results/benchmarks/logs/measure_selection.log",
    resources:
        **jobs.on_cpu(4000),
        runtime=60,
    params:
        module="benchmarks.measure_selection",
    message:
        "Measuring selection from 2.56 million records"


use rule measure_scoring as measure_tokenising with:
    input:
        benchmark=clone("benchmarks/measure_tokenising.py"),
        harness=clone("benchmarks/harness.py"),
        code=code("train_reward_model"),
        scoring=code("score_responses"),
    output:
        report="results/benchmarks/measure_tokenising.txt",
    log:
        "results/benchmarks/logs/measure_tokenising.log",
    resources:
        **jobs.on_cpu(4000),
        runtime=60,
    params:
        module="benchmarks.measure_tokenising",
    message:
        "Measuring what GPUs wait for tokens"
