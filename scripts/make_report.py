"""Make the report: one self-contained HTML page of an experiment's figures, tables and provenance.

Rule: make_report. Example:

    python -m scripts.make_report --results results/quickstart --experiment quickstart \
        --config '{...}' --config-hash 0123456789abcdef --figure figure4 --table table1 \
        --readme README.md --output results/quickstart/report.html

reads figures/, tables/ and the sidecars below --results; --config is the whole configuration.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    results: Annotated[Path, typer.Option(help="The experiment's folder.")],
    experiment: Annotated[str, typer.Option(help="Its name.")],
    config: Annotated[str, typer.Option(help="The whole configuration (JSON).")],
    config_hash: Annotated[str, typer.Option(help="Its hash.")],
    figure: Annotated[list[str], typer.Option(help="Name of a figure.")],
    table: Annotated[list[str], typer.Option(help="Name of a table.")],
    readme: Annotated[Path, typer.Option(help="README.md, with the table of assumptions.")],
    output: Annotated[Path, typer.Option(help="HTML page to write.")],
) -> None:
    """Make the report."""
    import json

    from dpa.artefacts.files import write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.errors import InputError
    from dpa.report.page import render

    try:
        parsed = json.loads(config)
    except json.JSONDecodeError as error:
        raise InputError(f"--config: {error}") from None
    page = render(results, experiment, parsed, config_hash, figure, table, readme)
    write_text(output, page)
    shown = [results / f"figures/{name}.csv" for name in figure]
    shown += [results / f"tables/{name}.md" for name in table]
    write_sidecar(output, shown, RowCounts.none(len(shown)))
    log.info("wrote %s (%.1f MB)", output, output.stat().st_size / 1e6)


if __name__ == "__main__":
    run(app)
