"""Write an experiment from one file of ratings or comparisons: hold-out, prompts, commented YAML.

No rule: for people. Example:

    python -m scripts.new_experiment --ratings mine.csv --policy path/to/chat-model --output mine

guesses which columns are prompt, response and ratings, and on what scales (from the first 5,000
rows; flags say otherwise), and prints what it took. A file may have a rated response per row; or
`chosen` and `rejected`; or lists of responses with lists of ratings or ranks. Of several raters of
one response the mean counts. A tenth of the prompts is held out. With one column of ratings the
response's length is the second objective. Prompts, iterations and lengths are what this machine can
make in eight hours (--hours), by plan_run's estimate. Then: `snakemake --cores all --config
experiment=mine/mine.yaml`.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import OutputFolderOption

app = make_app()


@app.command()
def main(
    ratings: Annotated[str, typer.Option(help="JSONL, JSON, CSV, parquet, or a folder of them.")],
    policy: Annotated[str, typer.Option(help="Chat model to steer: a folder, or a hub id.")],
    output: OutputFolderOption,
    prompt_column: Annotated[str | None, typer.Option(help="Its name; guessed without.")] = None,
    response_column: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    rating: Annotated[
        list[str] | None, typer.Option(help="A column of ratings (repeatable); guessed without.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.5, help="Of the prompts, how many are held out.")
    ] = 0.1,
    hours: Annotated[float, typer.Option(min=0.1, help="How long the run may take here.")] = 8,
) -> None:
    """Write an experiment from one file of ratings."""
    from importlib.util import find_spec

    from dpa.artefacts.outputs import save_folder
    from dpa.config.experiment import Config
    from dpa.config.load import load_config
    from dpa.data import new_experiment as new
    from dpa.plan.sizes import Chosen, choose_sizes, describe_sizes, this_machine
    from dpa.runtime.log import log

    found = new.read_file(
        ratings,
        {"--prompt-column": prompt_column, "--response-column": response_column},
        rating or [],
    )
    validation = new.held_out(found, ratings, share)
    machine = this_machine()
    prompts = len(found.responses) - len(validation)
    chosen: list[Chosen] = []

    def save(folder: Path) -> None:
        file = folder / f"{output.name}.yaml"

        def write(sizes: new.RunSizes, where: Path) -> None:
            new.write_prompts(
                folder / "validation_prompts.jsonl", found, new.answered(validation, sizes)
            )
            text = new.experiment_text(
                folder=str(where),
                found=found,
                policy=(policy, None if Path(policy).is_dir() else "locked"),
                engine="vllm" if find_spec("vllm") else "transformers",
                machine=machine,
                sizes=sizes,
            )
            file.write_text(text, encoding="utf-8")

        def load(sizes: new.RunSizes) -> Config:
            write(sizes, folder)
            return load_config({"experiment": str(file)})

        new.write_user_tables(folder, found, validation)
        usual = new.usual_sizes(found, policy, prompts, machine)
        chosen.append(choose_sizes(usual, machine, hours, load))
        write(chosen[0].sizes, output)

    save_folder(output, save)
    for what, value in new.summary(found, validation).items():
        log.info("%s: %s", what, value)
    log.info("sizes: %s", describe_sizes(chosen[0], machine, hours, policy))
    experiment = output / f"{output.name}.yaml"
    log.info("next, look at %s; what it takes: python -m scripts.plan_run --experiment %s",
             experiment, experiment)  # fmt: skip
    if not Path(policy).is_dir():
        log.info("then: snakemake --cores 1 lock_revisions --config experiment=%s", experiment)
    log.info("then: snakemake --cores all --config experiment=%s", experiment)


if __name__ == "__main__":
    run_app(app)
