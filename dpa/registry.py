"""The methods of the comparison, each written down once.

Adding one is an entry here, its module in dpa/methods, and its rule (docs/architecture.md).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

#: Where a method's policies lie below a run's folder:
#: `single`: <name>; `iterated`: <name>/iter<t>; `per_direction`: <name>/<direction>;
#: `iterated_per_direction`: <name>/<direction>/iter<t>; `none`: others' policies are averaged, or
#: sampled and chosen among.
Folders = Literal["single", "iterated", "per_direction", "iterated_per_direction", "none"]


@dataclass(frozen=True)
class Method:
    """A method, its looks, and what the rest of the pipeline needs to know about it."""

    name: str
    label: str
    """In figures, tables and the report."""
    marker: str
    colour: str
    """Okabe-Ito; of DPA its last iteration's, the others are from viridis."""
    folders: Folders
    trained_by: str
    """The rule that trains its policies."""
    conditioned_on: Literal["direction", "rewards", "rewards_for_direction", "nothing"]
    """What the system prompt carries: of DPA's iteration 0, which is SteerLM, it is rewards; those
    that belong to a direction, where a method says which."""
    objectives: Literal["all", "one", "none"]
    """How many objectives are taken into account (table 1)."""
    models_stored: Literal["one", "per_objective", "per_direction"]
    """How many models serve all evaluation directions."""
    paper_name: str | None = None
    """Its row in the paper's table 1."""
    may_be_given: bool = False
    """Whether a published policy may take its place: its section has a `path`."""
    chooses_from: str | None = None
    """Of a method that trains nothing: whose responses it chooses among at inference, by v.r."""

    @property
    def is_steered(self) -> bool:
        """Whether it has an answer of its own for each direction."""
        return self.folders == "none" or "direction" in self.conditioned_on

    @property
    def is_evaluated_by_iteration(self) -> bool:
        """Whether each iteration is a policy of the comparison, `<name>-<t>`."""
        return self.folders == "iterated"

    @property
    def is_loop(self) -> bool:
        """Whether it samples, scores and selects in iterations."""
        return self.folders in ("iterated", "iterated_per_direction")

    @property
    def has_one_policy(self) -> bool:
        """Whether a benchmark can judge it: it has a policy folder."""
        return self.folders != "none"


#: In the order in which they are drawn and listed.
METHODS = {
    method.name: method
    for method in (
        Method(
            "dpa", "DPA", "o", "#440154", folders="iterated", trained_by="finetune_policy",
            conditioned_on="direction", objectives="all", models_stored="one", paper_name="DPA",
        ),
        Method(
            "steerlm", "SteerLM", "s", "#D55E00", folders="single", trained_by="train_steerlm",
            conditioned_on="rewards", objectives="all", models_stored="one", paper_name="SteerLM",
        ),
        Method(
            "reward_soup", "Reward Soup", "v", "#0072B2", folders="none", trained_by="",
            conditioned_on="nothing", objectives="all", models_stored="per_objective",
            paper_name="Reward Soup",
        ),
        Method(
            "directional_dpo", "Directional DPO", "^", "#E69F00", folders="iterated",
            trained_by="train_directional_dpo", conditioned_on="direction", objectives="all",
            models_stored="one",
        ),
        Method(
            "ric", "Rewards-in-Context", "<", "#117733", folders="iterated", trained_by="train_ric",
            conditioned_on="rewards_for_direction", objectives="all", models_stored="one",
        ),
        Method(
            "online_dpo", "Online DPO", ">", "#882255", folders="single",
            trained_by="train_online_dpo", conditioned_on="direction", objectives="all",
            models_stored="one",
        ),
        Method(
            "best_of_n_steerlm", "SteerLM, best of n", "h", "#A65628", folders="none",
            trained_by="", conditioned_on="rewards_for_direction", objectives="all",
            models_stored="one", chooses_from="steerlm",
        ),
        Method(
            "best_of_n_sft", "SFT, best of n", "p", "#7F7F7F", folders="none", trained_by="",
            conditioned_on="nothing", objectives="all", models_stored="one", chooses_from="sft",
        ),
        Method(
            "rsf", "RSF", "P", "#56B4E9", folders="iterated_per_direction",
            trained_by="finetune_policy", conditioned_on="nothing", objectives="one",
            models_stored="per_direction",
        ),
        Method(
            "ppo", "PPO (RLOO)", "X", "#009E73", folders="per_direction", trained_by="train_ppo",
            conditioned_on="nothing", objectives="one", models_stored="per_direction",
            paper_name="PPO",
        ),
        Method(
            "dpo", "DPO", "D", "#CC79A7", folders="single", trained_by="train_dpo",
            conditioned_on="nothing", objectives="one", models_stored="one", paper_name="DPO",
            may_be_given=True,
        ),
        Method(
            "sft", "SFT", "*", "#000000", folders="single", trained_by="train_sft",
            conditioned_on="nothing", objectives="none", models_stored="one", may_be_given=True,
        ),
    )
}  # fmt: skip

if TYPE_CHECKING:
    MethodName = str
    ExpertMethod = str
    JudgedMethod = str
    ReferenceMethod = str
else:
    #: For the configuration: any method, those whose policies optimise one fixed direction each,
    #: those that a benchmark can judge, and those that can be what others are judged against (no
    #: direction, no iteration).
    MethodName = Literal[tuple(METHODS)]
    ExpertMethod = Literal[
        tuple(name for name, m in METHODS.items() if m.folders.endswith("per_direction"))
    ]
    JudgedMethod = Literal[tuple(name for name, m in METHODS.items() if m.has_one_policy)]
    ReferenceMethod = Literal[
        tuple(
            name
            for name, m in METHODS.items()
            if m.has_one_policy and m.conditioned_on == "nothing"
        )
    ]


#: An evaluated policy: its method, and its iteration where iterations are compared.
PolicyKey = tuple[str, int | None]


def policy_name(method: str, iteration: int | None) -> str:
    """How files and wildcards name an evaluated policy: `dpa-3`, `sft`."""
    return method if iteration is None else f"{method}-{iteration}"


def parse_policy(name: str) -> PolicyKey:
    """`dpa-3` → (dpa, 3); `sft` → (sft, None)."""
    method, _, iteration = name.partition("-")
    return method, int(iteration) if iteration else None
