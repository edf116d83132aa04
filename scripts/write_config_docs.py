"""Write docs/configuration.md from config.yaml and dpa/config.py.

No rule calls it: it is run by hand when a key changes, and a test fails when it was not. Example:

    python -m scripts.write_config_docs --output docs/configuration.md
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.cli import make_app, run

app = make_app()


@app.command()
def main(output: Annotated[Path, typer.Option(help="Output: the page.")]) -> None:
    """Write the reference page of configuration keys."""
    from dpa.config_docs import render
    from dpa.provenance import write_text

    write_text(output, render())


if __name__ == "__main__":
    run(app)
