"""Check the configuration against reality before anything expensive runs.

Rule: preflight, before every rule with a model. Example, of an experiment that is about to run:

    snakemake --cores 1 preflight --config experiment=mistral-7b

or, with the configuration as the rule gives it:

    python -m scripts.preflight --config "$CONFIG" --results results/mine \
        --parts '["dpa/iter0", "dpa/iter1"]' --policies dpa-0,dpa-1 --output preflight.json

writes what was checked. Ends with status 2, one line per failure, when something is wrong.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import log, make_app, parse, run

app = make_app()


@app.command()
def main(
    config: Annotated[str, typer.Option(help="The whole configuration (JSON).")],
    results: Annotated[Path, typer.Option(help="The experiment's results folder.")],
    parts: Annotated[str, typer.Option(help="Folders of a run that it trains (JSON).")],
    policies: Annotated[str, typer.Option(help="Evaluated policies, comma-separated.")],
    output: Annotated[Path, typer.Option(help="What was checked (JSON).")],
) -> None:
    """Check the configuration against reality."""
    import json

    from pydantic import TypeAdapter

    from dpa.config import Config
    from dpa.errors import InputError
    from dpa.preflight import check_all
    from dpa.provenance import write_text

    found = check_all(
        parse(Config, config, "config"),
        results,
        parse(TypeAdapter(list[str]), parts, "parts"),
        [name for name in policies.split(",") if name],
    )
    for note in found.notes:
        log.info("note: %s", note)
    if found.failures:
        lines = "\n".join(f"  {line}" for line in found.failures)
        raise InputError(f"{len(found.failures)} things are not ready for this run:\n{lines}")
    write_text(output, json.dumps({"passed": found.passed, "notes": found.notes}, indent=1) + "\n")
    log.info("ready: %s", ", ".join(found.passed))


if __name__ == "__main__":
    run(app)
