"""Sum what every stage of an experiment read, kept and dropped, and what it was made with.

Rule: collect_provenance. Example:

    python -m scripts.collect_provenance --results results/quickstart --experiment quickstart \
        --config-hash 0123456789abcdef --seed 0 --output results/quickstart/provenance.json

reads the sidecars of everything below --results.
"""

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ConfigHashOption,
    ExperimentOption,
    OutputOption,
    ResultsOption,
    SeedsOption,
)

app = make_app()


@app.command()
def main(
    results: ResultsOption,
    experiment: ExperimentOption,
    config_hash: ConfigHashOption,
    seed: SeedsOption,
    output: OutputOption,
) -> None:
    """Sum an experiment's sidecars."""
    import json

    from dpa.artefacts.outputs import write_text
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.report.run_record import run_record

    record = run_record(results, experiment, config_hash, seed)
    write_text(output, json.dumps(record, indent=1, sort_keys=True) + "\n")
    write_sidecar(output, artefacts=len(record["artefacts"]))
    total = record["total"]
    log.info(
        "%d artefacts of %d stages: read %d, kept %d, dropped %s",
        len(record["artefacts"]),
        len(record["stages"]),
        total["read"],
        total["kept"],
        total["dropped"] or 0,
    )


if __name__ == "__main__":
    run_app(app)
