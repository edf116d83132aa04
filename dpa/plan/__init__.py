"""What an experiment will take, before it is paid for: tokens, GPU-hours, memory, disk, wall time.

The jobs come from Snakemake's own DAG, what each has to do from the configuration (work), and how
long that takes from a small cost model (costs) whose constants are in assumptions.yaml, each with
its source. Estimates, to be replaced by measurements where there are some. Light: no torch.
"""
