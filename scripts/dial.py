"""Turn a policy's dial in the browser, and find your direction by clicking.

No rule: for people. Examples:

    python -m scripts.dial --policy results/quickstart/dpa/iter4/policy
    python -m scripts.dial --policy organisation/name@0123456789012345678901234567890123456789 \
        --base-url http://localhost:8000/v1 --judge-by path/to/reward_model

prints the address of a page, and opens it where there is a desktop: a dial over the directions of
training, a prompt, and three answers side by side, at the dial and at two other directions, with
length and rewards. The second tab asks which of two answers you like, and says which direction that
is. Only this machine can reach it (from another one: ssh -L), and only with the token that is part
of the address. With --base-url an OpenAI-compatible server of the policy answers, such as vLLM's.
"""

import os
import webbrowser
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
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
    base_url: Annotated[
        str | None, typer.Option(help="A server of the policy, as in http://localhost:8000/v1")
    ] = None,
    key_variable: Annotated[
        str | None, typer.Option(help="Environment variable with the server's key.")
    ] = None,
    judge_by: JudgeByOption = None,
    temperature: TemperatureOption = 0.7,
    max_new_tokens: MaxNewTokensOption = 100,
    seed: SeedOption = 0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is a free one.")] = 0,
) -> None:
    """Turn a policy's dial in the browser."""
    from dpa.serving.chat import Chat, Partner
    from dpa.serving.dial import DialServer, read_range
    from dpa.serving.served import ServedPolicy

    trained = read_range(policy)  # before a model is loaded
    partner: Partner
    if base_url is None:
        partner = Chat(policy, judge_by, temperature, max_new_tokens, seed)
    else:
        partner = ServedPolicy(
            policy, judge_by, base_url, key_variable, temperature, max_new_tokens
        )
    with DialServer(partner, trained, port) as server:
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    run_app(app)
