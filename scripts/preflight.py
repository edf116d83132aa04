"""Check the configuration against reality before anything expensive runs.

Rule: preflight, before every rule with a model. Example, of an experiment that is about to run:

    snakemake --cores 1 preflight --config experiment=mistral-7b

which calls

    python -m scripts.preflight --experiment "$DPA_PREFLIGHT" --output preflight.json

with the JSON of dpa.plan.preflight.preflight_input. Writes what was checked; ends with status 2
and one line per failure when something is not ready.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    experiment: Annotated[str, typer.Option(help="[configuration, results, folders, policies].")],
    output: Annotated[Path, typer.Option(help="What was checked (JSON).")],
) -> None:
    """Check the configuration against reality."""
    import json

    from pydantic import TypeAdapter

    from dpa.artefacts.files import write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.experiment import Config
    from dpa.errors import InputError
    from dpa.plan.preflight import check_all

    given = TypeAdapter(tuple[Config, str, list[str], list[str]])
    found = check_all(*parse(given, experiment, "experiment"))
    for note in found.notes:
        log.info("note: %s", note)
    if found.failures:
        raise InputError(found.report())
    write_text(output, json.dumps({"passed": found.passed, "notes": found.notes}, indent=1) + "\n")
    write_sidecar(output, [], RowCounts.none(len(found.passed)))
    log.info("ready: %s", ", ".join(found.passed))


if __name__ == "__main__":
    run(app)
