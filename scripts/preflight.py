"""Check the configuration against reality before anything expensive runs.

Rule: preflight, before every rule with a model. Example, of an experiment that is about to run:

    snakemake --cores 1 preflight --config experiment=mistral-7b

which calls

    python -m scripts.preflight --settings @results/.stamps/sections/0123456789abcdef.json \
        --output preflight.json

with the configuration, the folder of its results, and the stages and policies it will make. Writes
what was checked; ends with status 2 and one line per failure when something is not ready.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import OutputOption
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    settings: Annotated[
        str, typer.Option(help="@file: JSON of [configuration, results, stages, policies].")
    ],
    output: OutputOption,
) -> None:
    """Check the configuration against reality."""
    import json

    from pydantic import TypeAdapter

    from dpa.artefacts.outputs import write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.experiment import Config
    from dpa.errors import InputError
    from dpa.plan.preflight import check_all

    given = TypeAdapter(tuple[Config, str, list[str], list[str]])
    found = check_all(*read_section(given, settings, "settings"))
    for note in found.notes:
        log.info("note: %s", note)
    if found.failures:
        raise InputError(found.report())
    write_text(output, json.dumps({"passed": found.passed, "notes": found.notes}, indent=1) + "\n")
    write_sidecar(output, [], RowCounts.all_kept(len(found.passed)))
    log.info("ready: %s", ", ".join(found.passed))


if __name__ == "__main__":
    run_app(app)
