"""`dpa COMMAND`: the scripts for people, by name.

No rule: rules say `python -m scripts.<script>`. Example:

    dpa plan --experiment mistral-7b

is `python -m scripts.plan_run --experiment mistral-7b`. A script is imported when it is called.
"""

import ast
from importlib import import_module
from pathlib import Path

import typer
from typer.core import TyperGroup

from dpa.runtime.cli import run_app

#: Command -> its script.
COMMANDS = {
    "new": "new_experiment",
    "plan": "plan_run",
    "lock": "lock_revisions",
    "download": "download",
    "preflight": "preflight",
    "verify": "verify",
    "compare": "compare_runs",
    "chat": "chat",
    "dial": "dial",
    "fit": "fit_direction",
    "score": "score_responses",
    "export": "export_policy",
}


class Scripts(TyperGroup):
    """A group whose commands are the scripts' own, each imported when it is called."""

    def resolve_command(self, ctx, args):  # type: ignore[no-untyped-def]
        """As Typer's own: name, command, arguments."""
        name, _, rest = super().resolve_command(ctx, args)
        script = import_module(f"scripts.{COMMANDS[name]}")
        return name, typer.main.get_command(script.app), rest


def _summary(script: str) -> str:
    """A script's first line, without importing it."""
    source = Path(__file__).with_name(f"{script}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


app = typer.Typer(
    cls=Scripts, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
for command, script in COMMANDS.items():
    app.command(command, help=_summary(script))(lambda: None)


@app.callback()
def dpa() -> None:
    """Directional Preference Alignment: what people call; the pipeline itself is Snakemake's."""


def main() -> None:
    """The console script."""
    run_app(app)


if __name__ == "__main__":
    main()
