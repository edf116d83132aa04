"""What rules give for `input` and `params` as functions of their wildcards.

Functions for params take wildcards only: Snakemake does not notice a change of configuration in
params that depend on input or output.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpa.config.base import ModelConfig
from dpa.config.data import SourceConfig
from dpa.config.experiment import GivenJudgeConfig
from dpa.registry import parse_policy
from dpa.workflow import flags
from dpa.workflow.flags import Flags, section
from dpa.workflow.layout import Layout, shard_files
from dpa.workflow.stamps import Stamps

#: Snakemake's wildcards: an object with an attribute for each.
Wildcards = Any
#: A file as an input, or none.
Input = str | list[str]


class Adapters:
    """Functions of wildcards for the rules of one experiment."""

    def __init__(self, layout: Layout, stamps: Stamps):
        self.layout, self.config, self.stamps = layout, layout.config, stamps

    # --- Inputs ----------------------------------------------------------------------------------

    def files(self, *paths: str | None) -> list[str]:
        """Files as inputs, those that there are: a user's own as stamps of their content."""
        results = self.layout.results
        return [
            path if flags.is_made(path, results) else self.stamps.content(path)
            for path in paths
            if path
        ]

    def sources(self, *lists: list[SourceConfig]) -> list[str]:
        """The local ones of data sources as inputs."""
        return self.files(*flags.local_paths(source for some in lists for source in some))

    def made_or_given(self, given: ModelConfig, made: Input) -> Input:
        """A model as an input: the folder that the pipeline makes, or a local one's stamp."""
        if given.path is None:
            return made
        return self.stamps.content(given.path) if Path(given.path).exists() else []

    def prompt_half(self, wildcards: Wildcards) -> str:
        """The half of the training prompts that an iteration of a loop takes."""
        return f"{run_of(wildcards)}/data/prompts/{self.layout.prompt_half(*turn(wildcards))}.jsonl"

    def sampled_policy(self, wildcards: Wildcards) -> Input:
        """The policy that an iteration samples."""
        stage = self.layout.sampled_stage(*turn(wildcards))
        made = f"{run_of(wildcards)}/{stage}/policy"
        return self.made_or_given(self.config.sft, made) if stage == "sft" else made

    def iteration_conditions(self, wildcards: Wildcards) -> Input:
        """Which rewards an iteration asks for that samples SteerLM or Rewards-in-Context."""
        if turn(wildcards)[0] == "ric":
            return f"{run_of(wildcards)}/ric/ranges.json"
        steerlm = self.layout.samples_steerlm(*turn(wildcards))
        return f"{run_of(wildcards)}/steerlm/conditions.json" if steerlm else []

    def kept_so_far(self, wildcards: Wildcards) -> list[str]:
        """What an iteration of Rewards-in-Context learns from."""
        folder, last = f"{run_of(wildcards)}/{wildcards.loop}", int(wildcards.iteration)
        kept = [f"{folder}/iter{t}/kept.jsonl" for t in range(1, last + 1)]
        return [f"{folder}/originals.jsonl", *kept]

    def loop_reward_model(self, wildcards: Wildcards) -> Input:
        """The reward model that scores what an iteration samples."""
        loop, iteration = turn(wildcards)
        if self.layout.has_own_reward_model(loop, iteration):
            return feedback_model(wildcards, iteration)
        made = f"{run_of(wildcards)}/reward_model{wildcards.member}/model"
        return self.made_or_given(self.config.reward_model, made)

    def candidates(self, wildcards: Wildcards) -> list[str]:
        """The scored responses that an iteration chooses from, of each reward model that scores."""
        stage = self.layout.candidates_stage(*turn(wildcards))
        pattern = f"{run_of(wildcards)}/{stage}/scored{{member}}/{{shard}}.jsonl"
        return shard_files(pattern, self.config.shards, self.layout.members)

    def replay_annotations(self, wildcards: Wildcards) -> list[str]:
        """The original responses, with the scores of the models that select in an iteration."""
        loop, iteration = turn(wildcards)
        folder = run_of(wildcards)
        if self.layout.has_own_reward_model(loop, iteration):
            folder += f"/feedback/iter{iteration}"
        pattern = f"{folder}/annotations{{member}}/{{shard}}.jsonl"
        return shard_files(pattern, self.config.shards, self.layout.members)

    def feedback_before(self, name: str) -> Callable[[Wildcards], list[str]]:
        """The feedback files of that name of all iterations before."""

        def files(wildcards: Wildcards) -> list[str]:
            run, iteration = run_of(wildcards), int(wildcards.iteration)
            return [f"{run}/feedback/iter{t}/{name}" for t in range(1, iteration)]

        return files

    def reward_model_before(self, wildcards: Wildcards) -> Input:
        """The reward model that an iteration's continues, if it continues one."""
        if self.config.feedback.start == "base":
            return []
        if (before := int(wildcards.iteration) - 1) > 1:
            return feedback_model(wildcards, before)
        made = f"{run_of(wildcards)}/reward_model{wildcards.member}/model"
        return self.made_or_given(self.config.reward_model, made)

    def annotator_inputs(self, wildcards: Wildcards) -> Input:
        """What an annotator reads of a user's own: a model, or the files that people have rated."""
        annotator = self.config.feedback.annotator
        assert annotator is not None  # the rule is there only with one
        if annotator.kind == "reward_model":
            return self.made_or_given(annotator.model, [])
        if annotator.kind != "file":
            return []
        folder = f"{annotator.path}/iter{wildcards.iteration}"
        folder = folder.replace("{experiment}", wildcards.experiment)
        return self.stamps.content(folder) if Path(folder).exists() else []

    def evaluated_policy(self, wildcards: Wildcards) -> Input:
        """An evaluated policy, or the one whose responses it chooses among."""
        policy = self.layout.sampled_policy(wildcards.policy)
        if self.layout.is_given(policy):
            return self.made_or_given(getattr(self.config, policy), "")
        return f"{run_of(wildcards)}/{self.layout.stage_of_policy(policy)}/policy"

    def evaluated_conditions(self, wildcards: Wildcards) -> Input:
        """Which rewards are asked for, where a policy is evaluated on them."""
        if self.layout.reads_ranges(wildcards.policy):
            return f"{run_of(wildcards)}/ric/ranges.json"
        takes = self.layout.reads_conditions(wildcards.policy)
        return f"{run_of(wildcards)}/steerlm/conditions.json" if takes else []

    def evaluated_prompts(self, wildcards: Wildcards) -> str:
        """The prompts that policies are evaluated on: held-out ones, or a benchmark's."""
        validation = wildcards.benchmark == "evaluation"
        held_out = "data/prompts/validation" if validation else f"{wildcards.benchmark}/prompts"
        return f"{run_of(wildcards)}/{held_out}.jsonl"

    def evaluation_scorer(self, wildcards: Wildcards) -> Input:
        """The model that scores an evaluation's samples."""
        if is_selector(wildcards):
            return selector_model(wildcards)
        made = f"{run_of(wildcards)}/{wildcards.scorer}/model"
        return self.made_or_given(self.layout.scorers()[wildcards.scorer], made)

    def soup_experts(self, wildcards: Wildcards) -> list[str]:
        """The policies that Reward Soup averages."""
        run = run_of(wildcards)
        return [f"{run}/{stage}/policy" for stage in self.layout.soup_experts()]

    # --- Params ----------------------------------------------------------------------------------

    def base_seed(self, wildcards: Wildcards) -> int:
        """The seed that all others of a run derive from."""
        return self.layout.seed_of[wildcards.experiment]

    def loop_distribution(self, wildcards: Wildcards) -> str:
        """Where a loop's directions come from, as a section."""
        return section(self.layout.distribution_of_loop(wildcards.loop))

    def fixed_direction(self, wildcards: Wildcards) -> str:
        """A fixed direction's components."""
        return ",".join(map(str, self.layout.fixed_directions[wildcards.direction]))

    def loop_schedule(self, wildcards: Wildcards) -> str:
        """The schedule of a loop's trainings, as a section."""
        return section(getattr(self.config, wildcards.loop.split("/")[0]).schedule)

    def evaluation_sampling(self, wildcards: Wildcards) -> str:
        """How an evaluation samples, as a section."""
        return self.sampling(getattr(self.config, wildcards.benchmark).temperature)

    def responses_per_prompt(self, wildcards: Wildcards) -> int:
        """Responses under each direction: to a benchmark's prompt one."""
        validation = wildcards.benchmark == "evaluation"
        answers = self.config.evaluation.responses_per_prompt if validation else 1
        return answers * self.layout.samples_per_answer(wildcards.policy)

    def sampling(self, temperature: float) -> str:
        """Sampling at another temperature than training data's, as a section."""
        return section(self.config.sampling.model_copy(update={"temperature": temperature}))

    def sampled_policy_flags(self, wildcards: Wildcards) -> Flags:
        return flags.sampled_policy(self.layout, run_of(wildcards), *turn(wildcards))

    def condition_flags(self, wildcards: Wildcards) -> Flags:
        return flags.conditions(self.layout, run_of(wildcards), *turn(wildcards))

    def shared_flag(self, wildcards: Wildcards) -> Flags:
        """Whether all directions choose among one set of responses: SteerLM's."""
        steerlm = self.layout.candidates_stage(*turn(wildcards)) == "dpa/iter1"
        return ["--shared"] if steerlm else []

    def distinct_flag(self, wildcards: Wildcards) -> Flags:
        """Whether an answer is for one direction only, where directions share candidates: DPA's by
        its key, RSF's always, which are the same and would choose one answer."""
        dpa = self.config.dpa
        if self.layout.takes_first_pool(*turn(wildcards)):
            return ["--distinct"]
        shared = self.layout.samples_steerlm(*turn(wildcards)) or dpa.candidates != "own"
        return ["--distinct"] if dpa.distinct_answers and wildcards.loop == "dpa" and shared else []

    def candidates_flags(self, wildcards: Wildcards) -> Flags:
        """Whose responses DPA's directions choose among, where they have their own."""
        dpa, shared = self.config.dpa, self.layout.samples_steerlm(*turn(wildcards))
        if wildcards.loop != "dpa" or shared or dpa.candidates == "own":
            return []
        angle = ["--neighbour-degrees", str(dpa.neighbour_degrees)]
        return ["--candidates", dpa.candidates, *(angle if dpa.candidates == "neighbours" else [])]

    def evaluation_flags(self, wildcards: Wildcards) -> Flags:
        grid = getattr(self.config, wildcards.benchmark).directions
        if wildcards.benchmark == "evaluation" and self.layout.takes_directions(wildcards.policy):
            grid = self.layout.asked_grid
        return flags.steering(self.layout, run_of(wildcards), wildcards.policy, grid)

    def policy_flags(self, wildcards: Wildcards) -> Flags:
        """The SFT policy, where every training but its own starts."""
        return flags.model("--policy", self.config.sft, f"{run_of(wildcards)}/sft/policy")

    def reference_flags(self, wildcards: Wildcards) -> Flags:
        """The SFT policy, which another is compared with."""
        made = f"{run_of(wildcards)}/sft/policy"
        return flags.model("--reference-policy", self.config.sft, made)

    def base_model_flags(self, wildcards: Wildcards) -> Flags:
        made = f"{run_of(wildcards)}/base_model"
        return flags.model("--base-model", self.config.base_model, made)

    def member_flag(self, wildcards: Wildcards) -> Flags:
        """Which reward model is trained."""
        number = wildcards.member.removeprefix("/member")
        return ["--member", number] if number else []

    def probe_flag(self, wildcards: Wildcards) -> Flags:
        """The head that a reward model to be averaged starts from."""
        probe = f"{run_of(wildcards)}/reward_model/probe.safetensors"
        return ["--probe", probe] if self.layout.averaged else []

    def pessimism_flags(self, wildcards: Wildcards) -> Flags:
        """How several reward models choose, if there are several."""
        if (members := len(self.layout.members)) == 1:
            return []
        return ["--members", str(members), "--pessimism", section(self.config.dpa.pessimism)]

    def reward_model_flags(self, wildcards: Wildcards) -> Flags:
        """The reward model, and the names that its outputs must have, in order."""
        given = self.config.reward_model
        made = f"{run_of(wildcards)}/reward_model{wildcards.get('member', '')}/model"
        named = flags.model("--reward-model", given, made)
        return [*named, "--attributes", ",".join(given.attributes)]

    def reward_model_before_flags(self, wildcards: Wildcards) -> Flags:
        """The reward model that an iteration's continues, if it continues one."""
        if self.config.feedback.start == "base":
            return []
        if (before := int(wildcards.iteration) - 1) > 1:
            return ["--reward-model", feedback_model(wildcards, before)]
        made = f"{run_of(wildcards)}/reward_model{wildcards.member}/model"
        return flags.model("--reward-model", self.config.reward_model, made)

    def loop_scorer_flags(self, wildcards: Wildcards) -> Flags:
        """The reward model that scores what an iteration samples, and what runs it."""
        if not self.layout.has_own_reward_model(*turn(wildcards)):
            return self.scorer_flags(wildcards)
        names = ",".join(self.config.reward_model.attributes)
        own = feedback_model(wildcards, int(wildcards.iteration))
        model = ["--reward-model", own, "--attributes", names]
        return [*model, "--engine", self.config.reward_model.engine]

    def scorer_flags(self, wildcards: Wildcards) -> Flags:
        """The reward model, and what runs it."""
        return [*self.reward_model_flags(wildcards), "--engine", self.config.reward_model.engine]

    def evaluation_scorer_flags(self, wildcards: Wildcards) -> Flags:
        """The model that scores an evaluation's samples, and what runs it."""
        names: list[str] | None = self.config.reward_model.attributes
        if is_selector(wildcards):
            model = ["--reward-model", selector_model(wildcards)]
        else:
            given = self.layout.scorers()[wildcards.scorer]
            made = f"{run_of(wildcards)}/{wildcards.scorer}/model"
            model = flags.model("--reward-model", given, made)
            if isinstance(given, GivenJudgeConfig):
                names = given.attributes
        return [
            *model,
            *(["--attributes", ",".join(names)] if names else []),
            "--engine", self.config.reward_model.engine,
        ]  # fmt: skip

    def scorer_objectives(self, wildcards: Wildcards) -> str:
        """How a scorer's outputs make the objectives, as a section."""
        given = self.layout.scorers().get(wildcards.scorer)
        objectives = self.config.objectives
        if isinstance(given, GivenJudgeConfig):
            objectives = [
                o.model_copy(update={"outputs": given.outputs[o.name]}) for o in objectives
            ]
        return section(objectives)


def run_of(wildcards: Wildcards) -> str:
    """The folder of a run."""
    return f"results/{wildcards.experiment}"


def turn(wildcards: Wildcards) -> tuple[str, int]:
    """A loop and the number of its iteration; feedback, which has no {loop}, is about DPA."""
    return getattr(wildcards, "loop", "dpa"), int(wildcards.iteration)


def feedback_model(wildcards: Wildcards, iteration: int) -> str:
    """The reward model of an iteration, trained on feedback."""
    folder = f"{run_of(wildcards)}/feedback/iter{iteration}"
    return f"{folder}/reward_model{wildcards.member}/model"


def is_selector(wildcards: Wildcards) -> bool:
    """Whether a policy's samples are scored by what selected for its iteration alone."""
    return wildcards.scorer.startswith("selector")


def selector_model(wildcards: Wildcards) -> str:
    """The reward model that selected for a policy."""
    _, iteration = parse_policy(wildcards.policy)
    member = wildcards.scorer.removeprefix("selector")
    return f"{run_of(wildcards)}/feedback/iter{iteration}/reward_model{member}/model"
