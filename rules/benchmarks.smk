# What the code is fast at (docs/measurements.md): nothing that an experiment needs. Each takes all
# cores, so that no two run at a time.


rule measure_scoring:
    input:
        benchmark=["benchmarks/measure_scoring.py", "benchmarks/harness.py"],
        code=code("score_responses"),
    output:
        "results/benchmarks/measure_scoring.txt",
    log:
        "results/benchmarks/logs/measure_scoring.log",
    threads: os.cpu_count()
    resources:
        gpu=GPU,
        cpus_per_gpu=cfg.compute.cpus_per_gpu,
        mem_mb=memory(4000, on_gpu=64000),
        runtime=120,
    message:
        "Measuring reward scoring"
    shell:
        "python -m benchmarks.measure_scoring 2> {log} > {output:q}"


rule measure_sampling:
    input:
        benchmark=["benchmarks/measure_sampling.py", "benchmarks/harness.py"],
        code=code("sample_responses"),
    output:
        "results/benchmarks/measure_sampling.txt",
    log:
        "results/benchmarks/logs/measure_sampling.log",
    threads: os.cpu_count()
    resources:
        gpu=GPU,
        cpus_per_gpu=cfg.compute.cpus_per_gpu,
        mem_mb=memory(6000, on_gpu=64000),
        runtime=120,
    message:
        "Measuring sampling"
    shell:
        "python -m benchmarks.measure_sampling 2> {log} > {output:q}"


rule measure_training:
    input:
        benchmark=["benchmarks/measure_training.py", "benchmarks/harness.py"],
        code=code("finetune_policy"),
    output:
        "results/benchmarks/measure_training.txt",
    log:
        "results/benchmarks/logs/measure_training.log",
    threads: os.cpu_count()
    resources:
        gpu=GPU,
        cpus_per_gpu=cfg.compute.cpus_per_gpu,
        mem_mb=memory(4000, on_gpu=64000),
        runtime=120,
    message:
        "Measuring fine-tuning"
    shell:
        "python -m benchmarks.measure_training 2> {log} > {output:q}"


rule measure_startup:
    input:
        benchmark=["benchmarks/measure_startup.py", "benchmarks/harness.py"],
        startup="dpa/runtime/startup.py",
    output:
        "results/benchmarks/measure_startup.txt",
    log:
        "results/benchmarks/logs/measure_startup.log",
    threads: os.cpu_count()
    resources:
        mem_mb=memory(4000),
        runtime=60,
    message:
        "Measuring how long scripts take to start"
    shell:
        "python -m benchmarks.measure_startup 2> {log} > {output:q}"


rule measure_selection:
    input:
        benchmark=["benchmarks/measure_selection.py", "benchmarks/harness.py"],
        code=code("select_responses"),
    output:
        "results/benchmarks/measure_selection.txt",
    log:
        "results/benchmarks/logs/measure_selection.log",
    threads: os.cpu_count()
    resources:
        mem_mb=memory(4000),
        runtime=60,
    message:
        "Measuring selection from 2.56 million records"
    shell:
        "python -m benchmarks.measure_selection 2> {log} > {output:q}"
