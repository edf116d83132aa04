"""Write config.schema.json, from which editors complete and check config.yaml and experiments.

No rule: for a change of keys; a test says when it is due. Example:

    python -m scripts.write_config_schema --overwrite --output config.schema.json
"""

import json

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import OutputOption

app = make_app()


@app.command()
def main(output: OutputOption) -> None:
    """Write the JSON schema of the configuration."""
    from dpa.artefacts.outputs import write_text
    from dpa.config.schema import config_schema

    write_text(output, json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run_app(app)
