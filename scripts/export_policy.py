"""Export a policy: a folder that is complete by itself, with a model card, and to the hub if asked.

No rule: for people. Example:

    python -m scripts.export_policy --policy results/quickstart/dpa/iter4/policy \
        --output exported/otter --push organisation/name

writes weights in bfloat16, tokenizer, a chat template that takes the direction, steering.json, and
README.md with the hub's metadata, the run's figure 4 and table 1 where they are made
(docs/serving.md). `--push` uploads it with the token of `hf auth login` or HF_TOKEN.
"""

from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import OutputFolderOption, PolicyOption

app = make_app()


@app.command()
def main(
    policy: PolicyOption,
    output: OutputFolderOption,
    push: Annotated[
        str | None, typer.Option(help="Upload it as this repository, organisation/name.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="For the card, by the hub's names: apache-2.0.")
    ] = None,
) -> None:
    """Export a policy."""
    from dpa.serving.export import export_policy

    export_policy(policy, output, push, licence)


if __name__ == "__main__":
    run_app(app)
