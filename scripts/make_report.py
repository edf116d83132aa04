"""Make the report: one self-contained HTML page of an experiment's figures, tables and provenance.

Rule: make_report. Example:

    python -m scripts.make_report --results results/quickstart --experiment quickstart \
        --configuration @config.yaml --config-hash 0123456789abcdef --shown-figure figure4 \
        --shown-table table1 --deviations docs/deviations.md --output results/quickstart/report.html

reads figures/, tables/ and the sidecars below --results; --configuration is the whole one.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ConfigHashOption,
    ExperimentOption,
    OutputOption,
    ResultsOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    results: ResultsOption,
    experiment: ExperimentOption,
    configuration: Annotated[str, typer.Option(help="All of it (JSON, or @file).")],
    config_hash: ConfigHashOption,
    shown_figure: Annotated[list[str], typer.Option(help="Name of a figure on the page.")],
    shown_table: Annotated[list[str], typer.Option(help="Name of a table on the page.")],
    deviations: Annotated[Path, typer.Option(help="docs/deviations.md, with its table.")],
    output: OutputOption,
) -> None:
    """Make the report."""
    from pydantic import TypeAdapter

    from dpa.artefacts.outputs import write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.report.page import render

    parsed = read_section(TypeAdapter(dict), configuration, "configuration")
    page = render(results, experiment, parsed, config_hash, shown_figure, shown_table, deviations)
    write_text(output, page)
    shown = [results / f"figures/{name}.csv" for name in shown_figure]
    shown += [results / f"tables/{name}.md" for name in shown_table]
    write_sidecar(output, shown, RowCounts.all_kept(len(shown)))
    log.info("wrote %s (%.1f MB)", output, output.stat().st_size / 1e6)


if __name__ == "__main__":
    run_app(app)
