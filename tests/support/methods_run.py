"""A finished run of every method, on a small quickstart with three objectives, made by Snakemake.

Keys are in its environment, which no file may hold; several test files look at what it leaves.
"""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from dpa.runtime.sections import merge
from tests.support.chat_server import chat_server
from tests.support.snakemake_runs import (
    CANARIES,
    MINI,
    CommandLines,
    copy_repository,
    snakemake,
)

#: One iteration of everything.
ALL = """
extends: quickstart-3obj
shards: 1
methods:
  [dpa, sft, steerlm, dpo, ppo, rsf, reward_soup, directional_dpo, ric, online_dpo, best_of_n_sft,
   best_of_n_steerlm]
best_of_n: {samples: 3}
dpa: {iterations: 1}
rsf: {iterations: 1, schedule: {epochs: 1}}
ppo: {responses_per_prompt: 2, schedule: {epochs: 1, batch_size: 8}}
reward_soup: {iterations: 1}
directional_dpo: {iterations: 1}
ric: {iterations: 2, originals: 5}
online_dpo: {contrast_beta: 0.01, schedule: {epochs: 2, batch_size: 8}}
dpo: {recipes: {quickstart: {schedule: {epochs: 1}}}}
world: {alpacaeval_prompts: 4}
alpacaeval:
  prompts: 4
  methods: [sft]
  judge: {kind: endpoint, model: standin, key_variable: JUDGE_KEY}
evaluation: {directions: 3}
"""
RESULTS = Path("results/everything")
CONFIG = ("--config", "experiment=everything")


@dataclass
class MethodsRun:
    """The folder of the run, which is not to be changed, and what was seen of it."""

    folder: Path
    printed: str
    commands: set[bytes]
    """Command lines of all processes while it ran."""
    keys: set[str]
    """Keys that the judge was shown."""

    @classmethod
    def build(cls, folder: Path) -> None:
        """Run it in `folder/clone`, and keep what is known of it beside that."""
        clone = folder / "clone"
        clone.mkdir()
        copy_repository(clone)
        overlay = merge(yaml.safe_load(MINI), yaml.safe_load(ALL))
        with (
            pytest.MonkeyPatch.context() as patch,
            CommandLines() as commands,
            chat_server(lambda first, second: 0.6) as server,
        ):
            overlay["alpacaeval"]["judge"]["base_url"] = server.url
            (clone / "experiments/everything.yaml").write_text(yaml.safe_dump(overlay))
            for name, value in CANARIES.items():
                patch.setenv(name, value)
            # Where what it leaves is searched too.
            for name in ("TMPDIR", "HF_HOME"):
                (clone / name).mkdir()
                patch.setenv(name, str(clone / name))
            result = snakemake(clone, "--cores", "2", "--printshellcmds", "--verbose", *CONFIG)
        run = cls(clone, result.stdout, commands.seen, server.keys)
        (folder / "run.pickle").write_bytes(pickle.dumps(run))

    @staticmethod
    def load(folder: Path) -> "MethodsRun":
        """A run that `build` has left in a folder."""
        run = pickle.loads((folder / "run.pickle").read_bytes())
        return replace(run, folder=folder / "clone")
