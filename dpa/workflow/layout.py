"""Where an experiment's policies, stages, figures and tables are, and which of them it has.

A run is `results/<experiment>`, with several seeds `results/<experiment>/seed<n>`; a stage is a
folder below a run in which a policy is made: `sft`, `dpa/iter2`, `rsf/100_0/iter1`.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from dpa.config.base import ModelConfig
from dpa.config.experiment import Config, GivenJudgeConfig, JudgeShareConfig
from dpa.config.steering import Grid
from dpa.directions import (
    Direction,
    direction_name,
    evaluation_directions,
    expert_directions,
    fixed_distribution,
    from_degrees,
)
from dpa.registry import METHODS, parse_policy, policy_name

#: A fixed direction as part of a path.
DIRECTION_PATTERN = r"[\d_-]+"
#: What the wildcard {member} may be but nothing, and all that it may be: see Layout.members.
LATER_MEMBER = r"/member[1-9]\d*"
MEMBER_PATTERN = rf"(?:{LATER_MEMBER})?"
#: The rules of trainings that sample as they go, and write a history of it.
WITH_HISTORY = ("train_ppo", "train_online_dpo")
#: What the wildcard {loop} may be.
LOOP_PATTERN = "|".join(
    method.name + (f"/{DIRECTION_PATTERN}" if method.folders == "iterated_per_direction" else "")
    for method in METHODS.values()
    if method.is_loop
)


def loops_trained_by(rule: str) -> str:
    """What {loop} may be in the rule that trains some loops' policies."""
    patterns = LOOP_PATTERN.split("|")
    return "|".join(p for p in patterns if METHODS[p.split("/")[0]].trained_by == rule)


class Layout:
    """The layout of one experiment."""

    def __init__(self, config: Config):
        self.config = config
        self.results = f"results/{config.experiment}"
        #: Name of a run below results/ -> its base seed.
        self.seed_of = (
            {config.experiment: config.seeds[0]}
            if isinstance(config.seed, int)
            else {f"{config.experiment}/seed{seed}": seed for seed in config.seeds}
        )
        self.runs = [f"results/{run}" for run in self.seed_of]
        self.distribution = config.directions.model_dump()

    @property
    def has_policies(self) -> bool:
        """Whether there are prompts to train policies on; else there is a reward model only."""
        return bool(self.config.data.train_prompts)

    @property
    def members(self) -> list[str]:
        """What {member} is for each reward model that scores: nothing for the first, then
        `/member1`, ..."""
        return ["", *(f"/member{m}" for m in range(1, self.config.reward_model.scoring))]

    @property
    def averaged(self) -> list[str]:
        """What {member} is for each reward model that goes into the average, if there is one."""
        given = self.config.reward_model
        return [f"/member{m}" for m in range(1, given.members + 1)] if given.average else []

    @cached_property
    def fixed_directions(self) -> dict[str, Direction]:
        """What scalar methods and Reward Soup's experts optimise, by its name in paths."""
        directions = (self.config.scalar_direction, *self.expert_directions)
        return {direction_name(v): v for v in directions}

    @cached_property
    def expert_directions(self) -> list[Direction]:
        """What Reward Soup's experts optimise."""
        return expert_directions(self.distribution, self.config.reward_soup.experts_at)

    @property
    def scalar(self) -> str:
        """The name of the direction that scalar methods optimise."""
        return direction_name(self.config.scalar_direction)

    def iterations_of(self, method: str) -> int:
        """How many iterations a loop has."""
        return getattr(self.config, method).iterations

    # --- Stages ----------------------------------------------------------------------------------

    def stages_of_loop(self, method: str, iterations: int, direction: str = "") -> list[str]:
        """The stages of a loop's iterations 1, 2, ..."""
        folder = f"{method}/{direction}".rstrip("/")
        return [f"{folder}/iter{t}" for t in range(1, iterations + 1)]

    def soup_experts(self) -> list[str]:
        """The stages of Reward Soup's experts, in the order of expert_directions."""
        soup = self.config.reward_soup
        names = [direction_name(v) for v in self.expert_directions]
        last = f"/iter{soup.iterations}" if METHODS[soup.experts].is_loop else ""
        return [f"{soup.experts}/{name}{last}" for name in names]

    def stages_of(self, method: str) -> list[str]:
        """All stages that are trained for a method; none for a published policy."""
        config = self.config
        if (source := METHODS[method].chooses_from) is not None:
            return self.stages_of(source)
        if self.is_given(method):
            return []
        match METHODS[method].folders:
            case "none":
                soup = config.reward_soup
                if not METHODS[soup.experts].is_loop:
                    return self.soup_experts()
                experts = (expert.split("/")[1] for expert in self.soup_experts())
                return [
                    stage
                    for direction in experts
                    for stage in self.stages_of_loop(soup.experts, soup.iterations, direction)
                ]
            case "single":
                return [method]
            case "per_direction":
                return [f"{method}/{self.scalar}"]
            case "iterated_per_direction":
                return self.stages_of_loop(method, self.iterations_of(method), self.scalar)
        first = {"dpa": ["dpa/iter0"], "ric": ["steerlm"]}.get(method, [])
        if method == "directional_dpo" and config.directional_dpo.start == "dpa":
            first = ["dpa/iter0", "dpa/iter1"]
        return first + self.stages_of_loop(method, self.iterations_of(method))

    def method_stages(self) -> dict[str, list[str]]:
        """Each method of the experiment with the stages whose cost is the method's."""
        stages = {method: self.stages_of(method) for method in self.config.methods}
        for made in stages.values():
            if any(self.takes_first_pool(*_turn_of(stage)) for stage in made):
                made += ["dpa/iter0", "dpa/iter1/sampled", "dpa/iter1/scored"]
        if self.has_feedback and "dpa" in stages:
            last = self.config.dpa.iterations
            stages["dpa"] += [f"feedback/iter{t}" for t in range(1, last + 1) if last > 1]
        return stages

    def trained_stages(self) -> list[str]:
        """All stages that the methods train, each once."""
        found = (stage for method in self.config.methods for stage in self.stages_of(method))
        return list(dict.fromkeys(found))

    def trained_models(self) -> list[str]:
        """The models that a run trains by a loss, below it; those that have a history are not among
        them.

        A model averaged from others is none, and its ingredients are.
        """
        config = self.config
        policies = self.trained_stages() if self.has_policies else []
        if self.has_policies and config.sft.path is None:
            policies = ["sft", *policies]
        models = [
            f"reward_model{member}/model"
            for member in (self.averaged or self.members)
            if config.reward_model.path is None
        ]
        models += ["judge/model"] if config.judge_share else []
        if self.shows_dpa():
            models += [
                f"feedback/iter{t}/reward_model{member}/model"
                for t in range(1, config.dpa.iterations + 1)
                if self.has_own_reward_model("dpa", t)
                for member in self.members
            ]
        models += [
            f"{stage}/policy"
            for stage in dict.fromkeys(policies)
            if METHODS[stage.split("/")[0]].trained_by not in WITH_HISTORY
        ]
        from_base = any(m.startswith(("reward_", "judge/", "feedback/", "sft/")) for m in models)
        return (["base_model"] if config.base_model.path is None and from_base else []) + models

    # --- The loop's turns ------------------------------------------------------------------------

    def distribution_of_loop(self, loop: str) -> dict:
        """Where a loop's directions come from: rsf/<direction> has that one."""
        _, _, direction = loop.partition("/")
        if not direction:
            return self.distribution
        return fixed_distribution(self.fixed_directions[direction])

    def prompt_half(self, loop: str, iteration: int) -> str:
        """D1 for odd iterations, D2 for even ones (paper, section 3.1).

        Directional DPO that starts from DPA's first iteration, which D1 was for, takes D2 first.
        """
        ahead = loop == "directional_dpo" and self.config.directional_dpo.start == "dpa"
        return "d1" if (iteration + ahead) % 2 else "d2"

    def samples_steerlm(self, loop: str, iteration: int) -> bool:
        """Whether an iteration samples SteerLM, which takes conditions instead of directions."""
        return loop == "dpa" and iteration == 1

    def takes_first_pool(self, loop: str, iteration: int) -> bool:
        """Whether an iteration chooses from what DPA's first one sampled, and samples nothing."""
        pool = self.config.rsf.first_candidates
        return loop.startswith("rsf/") and iteration == 1 and pool == "dpa"

    def candidates_stage(self, loop: str, iteration: int) -> str:
        """The stage whose samples an iteration chooses from."""
        return "dpa/iter1" if self.takes_first_pool(loop, iteration) else f"{loop}/iter{iteration}"

    def sampled_stage(self, loop: str, iteration: int) -> str:
        """Whose policy an iteration samples: the previous iteration's, or where the loop starts."""
        if iteration < 1:
            raise ValueError("iteration 0 is where a loop starts: nothing is sampled for it")
        if iteration > 1 or loop == "dpa":
            return f"{loop}/iter{iteration - 1}"
        if loop == "directional_dpo" and self.config.directional_dpo.start == "dpa":
            return "dpa/iter1"
        return "steerlm" if loop == "ric" else "sft"

    # --- Feedback --------------------------------------------------------------------------------

    @property
    def has_feedback(self) -> bool:
        """Whether samples are rated between DPA's iterations."""
        return self.has_policies and self.config.feedback.annotator is not None

    def has_own_reward_model(self, loop: str, iteration: int) -> bool:
        """Whether a reward model that was trained on feedback selects in an iteration: in those of
        DPA that have others before them."""
        return self.has_feedback and loop == "dpa" and iteration > 1

    # --- Evaluated policies ----------------------------------------------------------------------

    def is_given(self, policy: str) -> bool:
        """Whether a policy is a published one, named in the configuration."""
        method = METHODS.get(policy)
        return (
            bool(method and method.may_be_given) and getattr(self.config, policy).path is not None
        )

    def policies(self) -> list[str]:
        """Names of the evaluated policies: the methods' iterations (DPA's from 0), or methods."""
        names: list[str] = []
        for method in self.config.methods:
            if METHODS[method].is_evaluated_by_iteration:
                last = self.iterations_of(method)
                first = 0 if method == "dpa" else 1
                names += [policy_name(method, t) for t in range(first, last + 1)]
            else:
                names.append(method)
        return names

    def last_policies(self, methods: Iterable[str]) -> list[str]:
        """The last policy of each of the methods that the experiment has."""
        last = {parse_policy(name)[0]: name for name in self.policies()}
        return [last[method] for method in methods if method in last]

    @property
    def chooses(self) -> bool:
        """Whether the judge chooses DPA's iteration; its policy is `dpa` then, in dpa/chosen."""
        config = self.config
        has_dpa = "dpa" in config.methods and config.dpa.iterations > 0
        return has_dpa and self.has_policies and config.dpa.choose_iteration == "judge"

    def benchmarked_policies(self, methods: Iterable[str]) -> list[str]:
        """The policy that benchmarks take of each of the methods that the experiment has."""
        last = self.last_policies(methods)
        return ["dpa" if self.chooses and name.startswith("dpa-") else name for name in last]

    def stage_of_policy(self, policy: str) -> str:
        """The stage that makes an evaluated policy."""
        if policy == "dpa" and self.chooses:
            return "dpa/chosen"
        method, iteration = parse_policy(policy)
        return f"{method}/iter{iteration}" if iteration is not None else self.stages_of(method)[-1]

    def sampled_policy(self, policy: str) -> str:
        """Whose responses an evaluated policy's are: its own, or those that it chooses among."""
        method, _ = parse_policy(policy)
        return METHODS[method].chooses_from or policy

    def samples_per_answer(self, policy: str) -> int:
        """How many responses are sampled for each answer of an evaluated policy."""
        return self.config.best_of_n.samples if self.sampled_policy(policy) != policy else 1

    def takes_conditions(self, policy: str) -> bool:
        """Whether a policy is evaluated on SteerLM's conditions instead of directions."""
        method, iteration = parse_policy(policy)
        return METHODS[method].conditioned_on == "rewards" or (method, iteration) == ("dpa", 0)

    def takes_directions(self, policy: str) -> bool:
        """Whether a policy is asked for the grid's directions, or for the rewards of each."""
        method, _ = parse_policy(policy)
        return "direction" in METHODS[method].conditioned_on and not self.takes_conditions(policy)

    def reads_conditions(self, policy: str) -> bool:
        """Whether SteerLM's conditions say what a policy is asked for."""
        return self.takes_conditions(policy) or self.sampled_policy(policy) == "steerlm"

    def reads_ranges(self, policy: str) -> bool:
        """Whether the data's range of rewards says what a policy is asked for in a direction."""
        return parse_policy(policy)[0] == "ric"

    @cached_property
    def asked_grid(self) -> Grid:
        """What policies that take directions are evaluated under: the grid, then what is outside of
        the trained arc."""
        evaluation = self.config.evaluation
        if not evaluation.outside_degrees:
            return evaluation.directions
        inside = evaluation_directions(self.distribution, evaluation.directions)
        return [*inside, *map(from_degrees, evaluation.outside_degrees)]

    def scorers(self) -> dict[str, ModelConfig]:
        """Who scores evaluation's samples: `evaluation/scored_by/<scorer>/<policy>.jsonl`.

        Each is `<scorer>/model` below the run, or a model that the configuration names.
        """
        config = self.config
        scorers: dict[str, ModelConfig] = {
            f"reward_model{member}": config.reward_model for member in self.members
        }
        match config.evaluation.judge:
            case GivenJudgeConfig() as given:
                scorers["judge"] = given
            case JudgeShareConfig():
                scorers["judge"] = ModelConfig(path=None, revision=None)
        return scorers

    @property
    def has_judge(self) -> bool:
        """Whether there is a learnt scorer that never selects."""
        return "judge" in self.scorers()

    def rated_scorers(self) -> list[str]:
        """Whose agreement with held-out ratings is shown: the first reward model, and the judge."""
        return ["reward_model", *(["judge"] if self.has_judge else [])]

    @property
    def shown_scorer(self) -> str:
        """Whose rewards tables and figures show: the reward model's, or the means of several."""
        return "members" if len(self.members) > 1 else "reward_model"

    def selectors(self) -> list[str]:
        """Who selected in some iterations only, by names as those of `scorers`: the reward models
        that were trained on feedback."""
        iterations = self.config.dpa.iterations if self.shows_dpa() else 0
        feedback = any(self.has_own_reward_model("dpa", t + 1) for t in range(iterations))
        return [f"selector{member}" for member in self.members] if feedback else []

    def selected_by(self, policy: str) -> list[str]:
        """Who selected for an iteration of DPA, reward model by reward model, where what it
        maximised is not v.r by `shown_scorer`; none for other policies."""
        method, iteration = parse_policy(policy)
        pessimistic = len(self.members) > 1 and self.config.dpa.pessimism != "none"
        if method != "dpa" or not iteration or not (self.selectors() or pessimistic):
            return []
        own = self.has_own_reward_model("dpa", iteration)
        return [f"{'selector' if own else 'reward_model'}{member}" for member in self.members]

    def selector_scores(self) -> list[str]:
        """The files of `selected_by`, of all policies."""
        return [
            f"evaluation/scored_by/{scorer}/{policy}.jsonl"
            for policy in self.policies()
            for scorer in self.selected_by(policy)
        ]

    def measured_policies(self) -> list[str]:
        """Whose divergence from SFT is measured: DPA's iterations, unless evaluation is greedy."""
        if not self.shows_dpa() or self.config.evaluation.temperature == 0:
            return []
        return [policy_name("dpa", t) for t in range(1, self.config.dpa.iterations + 1)]

    # --- Benchmarks ------------------------------------------------------------------------------

    def alpacaeval_policies(self) -> list[str]:
        if self.config.alpacaeval is None:
            return []
        return self.benchmarked_policies(self.config.alpacaeval.methods)

    def rewardbench_policies(self) -> tuple[list[str], str | None]:
        """The policies that are compared with the reference, and the reference; or none."""
        section = self.config.rewardbench
        if section is None:
            return [], None
        compared = self.benchmarked_policies(m for m in section.methods if m != section.reference)
        reference = self.last_policies([section.reference])
        return (compared, reference[0]) if compared and reference else ([], None)

    def rewardbench_judged(self) -> list[str]:
        """The policies whose responses are judged."""
        compared, reference = self.rewardbench_policies()
        return [*compared, reference] if reference else []

    def rewardbench_tables(self) -> list[str]:
        """Without a policy and a reference there is only the reward model's accuracy."""
        tables = ["reward_model_accuracy"] + (["win_rates"] if self.rewardbench_judged() else [])
        return [f"{self.results}/rewardbench/{table}.csv" for table in tables]

    def histories(self) -> list[str]:
        """The histories of what samples as it trains, below a run."""
        config = self.config
        if not self.has_policies:
            return []
        names = [self.scalar] if "ppo" in config.methods else []
        if "reward_soup" in config.methods and config.reward_soup.experts == "ppo":
            names += [direction_name(v) for v in self.expert_directions]
        online = ["online_dpo"] if "online_dpo" in config.methods else []
        stages = [*(f"ppo/{name}" for name in dict.fromkeys(names)), *online]
        return [f"{stage}/history.csv" for stage in stages]

    def online_histories(self) -> list[str]:
        """All of them, seed by seed."""
        return files_of(self.runs, *self.histories())

    # --- What is shown ---------------------------------------------------------------------------

    def shows_dpa(self) -> bool:
        """Whether there is a DPA to compare with."""
        return self.has_policies and "dpa" in self.config.methods

    def figure_names(self) -> list[str]:
        names = ["figure1", "figure4"] if self.shows_dpa() else []
        names += ["figure5"] if self.targets("alpacaeval") else []
        names += ["overoptimisation"] if self.measured_policies() else []
        names += ["response_length", "reward_against_length"] if self.shows_dpa() else []
        names += ["training_curves"] if self.trained_models() or self.histories() else []
        if self.has_policies:
            names += ["policy_gradient"] if self.online_histories() else []
            names += ["costs"]
        return [*names, "reward_model"]

    def table_names(self) -> list[str]:
        names = ["figure1", "table1", "comparison"] if self.shows_dpa() else []
        names += ["chosen"] if self.chooses else []
        if any(PurePosixPath(t).stem == "win_rates" for t in self.targets("rewardbench")):
            names += ["table2", "rewardbench_reward_model"]
        names += ["costs"] if self.has_policies else []
        return [*names, "reward_model"]

    def targets(self, name: str) -> list[str]:
        """The files of a target rule: `reward_model`, `dpa`, `baselines`, `figures`, ..."""
        config, results = self.config, self.results
        shown = {
            "figures": ("figures", self.figure_names, config.figures.style.formats),
            "tables": ("tables", self.table_names, ("csv", "md", "tex")),
        }
        if name in shown:
            folder, names, kinds = shown[name]
            return [f"{results}/{folder}/{n}.{kind}" for n in names() for kind in kinds]
        if name == "reward_model":
            tables = ("metrics", "ranking")
            return files_of(
                self.runs,
                *(f"{scorer}/{table}.csv" for scorer in self.rated_scorers() for table in tables),
            )
        if name in ("report", "provenance"):
            return [f"{results}/{'report.html' if name == 'report' else 'provenance.json'}"]
        if not self.has_policies:
            return []
        if name == "dpa":
            stages = range(config.dpa.iterations + 1)
            chosen = ["dpa/chosen.json"] if self.chooses else []
            return files_of(self.runs, *(f"dpa/iter{t}/policy" for t in stages), *chosen)
        if name == "baselines":
            others = [policy for policy in self.policies() if parse_policy(policy)[0] != "dpa"]
            scored = [
                f"evaluation/scored_by/{self.shown_scorer}/{policy}.jsonl" for policy in others
            ]
            return files_of(self.runs, *scored)
        if name == "alpacaeval":
            return [f"{results}/alpacaeval/results.csv"] if self.alpacaeval_policies() else []
        if name == "rewardbench":
            return self.rewardbench_tables() if config.rewardbench else []
        raise ValueError(f"no target {name!r}")


def _turn_of(stage: str) -> tuple[str, int]:
    """A stage's loop and iteration; 0 where it has none."""
    loop, _, last = stage.rpartition("/")
    return loop, int(last.removeprefix("iter")) if last.startswith("iter") else 0


def shard_files(pattern: str, shards: int, members: Sequence[str] = ("",)) -> list[str]:
    """All shards of a pattern with {shard} in it; of one with {member}, member by member."""
    return [
        pattern.replace("{member}", member).replace("{shard}", str(shard))
        for member in members
        for shard in range(shards)
    ]


def files_of(runs: Sequence[str], *names: str) -> list[str]:
    """The named files of each run."""
    return [f"{run}/{name}" for run in runs for name in names]
