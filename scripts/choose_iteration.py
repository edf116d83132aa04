"""Choose one of DPA's iterations by the judge, and put its policy where benchmarks take it from.

Rule: choose_iteration (only with dpa.choose_iteration: judge). Example:

    python -m scripts.choose_iteration --prompt-rewards evaluation/prompt_rewards.parquet \
        --objective-names helpfulness,verbosity --hypervolume-reference 0,100 \
        --candidate dpa/iter1/policy --candidate dpa/iter2/policy \
        --output dpa/chosen.json --output-policy dpa/chosen/policy

Reads half of the validation prompts. Writes which iteration it is, and why, and its policy: the
files of the candidate, linked where the file system can.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    FOLDER,
    ObjectiveNamesOption,
    OutputOption,
    PromptRewardsOption,
    ReferenceOption,
)

app = make_app()


@app.command()
def main(
    prompt_rewards: PromptRewardsOption,
    objective_names: ObjectiveNamesOption,
    hypervolume_reference: ReferenceOption,
    candidate: Annotated[list[Path], typer.Option(help="Policy of an iteration, from 1.")],
    output: OutputOption,
    output_policy: Annotated[Path, typer.Option(help="Its policy, which is written."), FOLDER],
) -> None:
    """Choose one of DPA's iterations by the judge."""
    import json
    import os
    import shutil

    from dpa.artefacts.files import TIMESTAMP
    from dpa.artefacts.outputs import save_folder, write_text
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.errors import InputError
    from dpa.evaluation.bootstrap import read_prompt_rewards
    from dpa.evaluation.choice import choose_iteration

    if len(prompt_rewards) != 1:
        raise InputError("--prompt-rewards: give one; each seed chooses for itself")
    names = objective_names.split(",")
    reference = [float(value) for value in hypervolume_reference.split(",")]
    table = read_prompt_rewards(prompt_rewards[0], names)
    if f"judge_{names[0]}" not in table:
        raise InputError(f"{prompt_rewards[0]}: not scored by a judge; set evaluation.judge")
    choice = choose_iteration(table, names, reference)
    if choice.iteration > len(candidate):
        raise InputError(
            f"--candidate: {len(candidate)} policies, iteration {choice.iteration} chosen"
        )
    policy = candidate[choice.iteration - 1]
    if not policy.is_dir():
        raise InputError(f"{policy}: no such folder; train the iteration first")

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # a file system without links
            shutil.copy2(source, target)

    def write(folder: Path) -> None:
        # Snakemake touches its stamp of a finished folder, which would make the candidate new, too.
        own = shutil.ignore_patterns(TIMESTAMP)
        shutil.copytree(policy, folder, ignore=own, copy_function=link, dirs_exist_ok=True)

    save_folder(output_policy, write)
    counts = RowCounts.all_kept(len(table))
    inputs = [*prompt_rewards, policy]
    write_sidecar(output_policy, inputs, counts, counted_in=output.name, chosen=choice.iteration)
    volumes = {t: found._asdict() for t, found in choice.hypervolume.items()}
    record = choice._asdict() | {"hypervolume": volumes}
    write_text(output, json.dumps(record, indent=1) + "\n")
    write_sidecar(output, inputs, counts)
    log.info("iteration %d of %d looked at", choice.iteration, len(volumes))


if __name__ == "__main__":
    run_app(app)
