"""The commands of the rules, as Snakemake would run them, and the files of a miniature run.

What tests start are these commands, word for word, with the options that a test changes.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.harness import planned_jobs
from dpa.runtime.run_environment import CLONE
from dpa.runtime.sections import merge
from tests.support.snakemake_runs import copy_repository, snakemake

#: The quickstart as small as its stages allow.
TINY = """
shards: 2
world:
  helpsteer_rows: 60
  ultrafeedback_prompts: 40
  validation_prompts: 4
  unseen_prompts: 2
  pretraining_documents: 60
  sft_rows: 40
data: {prompts_per_half: 8}
base_model: {scratch: {vocab_size: 700, schedule: {epochs: 1}}}
reward_model: {schedule: {epochs: 1, warmup_steps: 2}}
sft: {schedule: {epochs: 1, warmup_steps: 2}}
steerlm: {schedule: {epochs: 1, warmup_steps: 2}}
dpa:
  iterations: 2
  directions_per_prompt: 2
  responses_per_direction: 3
  schedule: {epochs: 1, warmup_steps: 2}
sampling: {prompts_per_chunk: 2, max_new_tokens: 24, max_truncated_fraction: 1.0}
evaluation: {directions: 3, responses_per_prompt: 1}
rsf: {iterations: 1, schedule: {epochs: 1, warmup_steps: 2}}
reward_soup: {iterations: 1}
"""


#: The scripts of the method, from raw data to the policies of DPA and RSF.
METHOD = (
    "make_quickstart_data", "prepare_data", "pretrain_base_model", "train_reward_model",
    "train_sft", "annotate_responses", "compute_conditions", "train_steerlm", "sample_responses",
    "score_responses", "select_responses", "finetune_policy",
)  # fmt: skip
#: The scripts from policies to figure 4.
FRONT = ("sample_evaluation", "sample_soup", "collect_validation_rewards", "plot_pareto_front")


@dataclass(frozen=True)
class Command:
    """A job's command: the script, its arguments, and the job's log."""

    script: str
    arguments: list[str]
    log: str

    def value(self, option: str) -> str:
        """The value of an option that is given once."""
        return self.arguments[self.arguments.index(option) + 1]

    def changed(self, **options: str | list[str] | None) -> "Command":
        """With other values of options (`iteration="2"`): a list repeats one, None drops it."""
        arguments = list(self.arguments)
        for name, value in options.items():
            option = "--" + name.replace("_", "-")
            while option in arguments:
                at = arguments.index(option)
                del arguments[at : at + 2]
            for one in [value] if isinstance(value, str) else value or []:
                arguments += [option, one]
        return Command(self.script, arguments, self.log)


def add_experiment(folder: Path, name: str, *overlays: str) -> Path:
    """A copy of the repository with an experiment that overlays the quickstart."""
    copy_repository(folder)
    whole = yaml.safe_load((CLONE / "experiments/quickstart.yaml").read_text())
    for overlay in overlays:
        whole = merge(whole, yaml.safe_load(overlay))
    (folder / f"experiments/{name}.yaml").write_text(yaml.safe_dump(whole))
    return folder


def planned_commands(folder: Path, *arguments: str) -> list[Command]:
    """The commands of all jobs, in an order in which they can run."""
    output = snakemake(folder, "-n", "-p", "--forceall", *arguments).stdout
    return [Command(*job) for job in planned_jobs(output)]


def of(commands: list[Command], script: str, part: str = "") -> Command:
    """The first command of a script whose log's path contains `part`."""
    return next(c for c in commands if c.script == script and part in c.log)
