"""Talk to a steerable policy: one prompt, or interactively.

Calling rule: none; for people. Example:

    python -m scripts.chat --policy results/quickstart/dpa/iter4/policy --direction 0.8,-0.6 \
        --prompt "Describe the otter."

Prints the answer as it grows, its length and its rewards. A policy that was copied from its run, or
published, has no reward model beside it; `--judge-by` names one. In an interactive session
`/direction 1,0` and `/angle -30` change the direction; an empty line ends it.
"""

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    DirectionOption,
    JudgeByOption,
    MaxNewTokensOption,
    PolicyOption,
    SeedOption,
    TemperatureOption,
)

app = make_app()


@app.command()
def main(
    policy: PolicyOption,
    direction: DirectionOption = None,
    angle: Annotated[
        float | None, typer.Option(help="Instead: the direction (cos a, sin a), in degrees.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="One-shot; interactive without.")] = None,
    judge_by: JudgeByOption = None,
    temperature: TemperatureOption = 0.7,
    max_new_tokens: MaxNewTokensOption = 100,
    seed: SeedOption = 0,
) -> None:
    """Talk to a steerable policy."""
    from dpa.directions import read_direction
    from dpa.errors import InputError
    from dpa.runtime.log import visible
    from dpa.serving.chat import Chat, read_directed

    # Before anything is loaded: a wrong direction should not cost a model.
    names = read_directed(policy).names
    asked = read_direction(direction, angle, len(names))
    chat = Chat(policy, judge_by, temperature, max_new_tokens, seed)
    if prompt is not None:
        _show(chat.answer(prompt, asked))
        return
    print(f"direction {asked} over {names}; /direction 1,0 or /angle -30 to change, empty to end")
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    while text := _line().strip():
        command, _, value = text.partition(" ")
        try:
            if not _is_text(text):
                print("error: that line is not UTF-8; type it again")
            elif command == "/direction":
                asked = read_direction(value, None, len(names))
            elif command == "/angle":
                asked = read_direction(None, float(value), len(names))
            else:
                _show(chat.answer(text, asked))
        except (InputError, ValueError) as error:
            print(visible(f"error: {error}"))


def _show(pieces: Iterable[str]) -> None:
    """Print an answer while it grows."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _line() -> str:
    """What is typed next; empty at the end of the input."""
    try:
        return input("> ")
    except EOFError:
        print()
        return ""


def _is_text(line: str) -> bool:
    """Whether a line was UTF-8: bytes that are not came in as lone surrogates."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


if __name__ == "__main__":
    run_app(app)
