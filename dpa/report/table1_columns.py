"""The parts of table 1, their columns, and what these mean."""

from dpa.evaluation.bootstrap import REQUEST_TOLERANCE

#: Title of the part on how far a policy can be steered.
STEERABILITY = "Steerability"
#: Title of the part that says which rows had the same to learn from.
BUDGET = "Budget"
#: Name, heading, format, unit.
TableColumn = tuple[str, str, str, float]


def _by_each_scorer(name: str, heading: str, form: str) -> list[TableColumn]:
    """A measure by the reward model, by the judge, and by gold."""
    others: list[TableColumn] = [
        (f"{name}_{scorer}", f"{heading} ({scorer})", form, 1) for scorer in ("judge", "gold")
    ]
    return [(name, heading, form, 1), *others]


#: Title of a part of the table, what it says, and its columns.
SECTIONS: list[tuple[str, str, list[TableColumn]]] = [
    (
        "Properties",
        "Control is Spearman's correlation of the requested and the obtained trade-off, the mean "
        "over objectives (0: no control; a dash: nothing can be requested). A request is "
        f"infeasible if a reward misses it by more than {REQUEST_TOLERANCE:g} points; a direction "
        "requests no rewards, so there is nothing to miss. Models are those stored to serve every "
        "evaluated direction. The last columns are the paper's.",
        [
            ("objectives_conditioned", "objectives conditioned on", ".0f", 1),
            *_by_each_scorer("control", "control", ".3f"),
            ("models", "models stored", ".0f", 1),
            ("bytes", "MB stored", ",.1f", 1e6),
            *_by_each_scorer("infeasible_share", "infeasible share", ".3f"),
        ],
    ),
    (
        "Rewards",
        "Hypervolume is in percent of the box from the reference corner to the ideal, of methods "
        "that can be steered. Mean v·r takes a steered method at its own point for each direction, "
        "any other at its most favourable one. The worst regret is that of the direction in which "
        "it is largest. Dominated is the share of a method's points to which some point of DPA is "
        "at least equal in every objective.",
        [
            *_by_each_scorer("hypervolume", "hypervolume", ".2f"),
            *_by_each_scorer("mean_vr", "mean v·r", ".2f"),
            *_by_each_scorer("worst_regret", "worst regret", ".2f"),
            *_by_each_scorer("dominated_by_dpa", "dominated by DPA", ".3f"),
        ],
    ),
    (
        "Outside of the trained directions",
        "Under the directions of evaluation.outside_degrees, which no other number counts: methods "
        "that take directions at the point they gave, others at their most favourable one.",
        [
            *_by_each_scorer("outside_mean_vr", "mean v·r", ".2f"),
            *_by_each_scorer("outside_worst_regret", "worst regret", ".2f"),
        ],
    ),
    (
        "Unseen prompts",
        "Mean v·r on the prompts of data.unseen_prompts, which no other number counts.",
        [
            *_by_each_scorer("unseen_mean_vr", "mean v·r", ".2f"),
        ],
    ),
    (
        STEERABILITY,
        "Standardised mean v·r (mean inner product) and dispersion, the mean determinant of the "
        "rewards' covariance under one direction, are of rewards standardised by the SFT policy's "
        "validation mean and standard deviation. Degenerate responses are very short or "
        "repetitive; equal ones are pairs under two directions. Miscalibration is how unequally "
        "far directions move the reward model's outputs along what they ask; side effects are the "
        "share of the movement across it.",
        [
            *_by_each_scorer("mean_inner_product", "standardised v·r", ".3f"),
            *_by_each_scorer("dispersion", "dispersion", ".3f"),
            ("degenerate_share", "degenerate", ".3f", 1),
            ("equal_share", "equal across directions", ".3f", 1),
            ("miscalibration", "miscalibration", ".3f", 1),
            ("side_effects", "side effects", ".3f", 1),
        ],
    ),
    (
        BUDGET,
        "What methods learn from. Iterations are rounds of sampling and training, of one expert "
        "where there are several (a dash: it samples in every step); labels are responses with "
        "rewards or ratings: samples that were scored (equal ones once) or rated as feedback, "
        "original responses that SteerLM learns, and both answers of DPO's pairs. The last column "
        "is how far a budget is from DPA's.",
        [
            ("iterations", "iterations", ",.0f", 1),
            ("responses_sampled", "responses sampled", ",.0f", 1),
            ("labels", "labels", ",.0f", 1),
        ],
    ),
    (
        "Cost",
        "Of making the method as it was evaluated, for PPO and RSF one trade-off only. Tokens "
        "trained are response tokens of the training rows, counted once for all epochs; seconds "
        "are the wall time of its jobs one after the other. Best of n costs what its policy did, "
        "and with every answer the responses that it is the best of (blank: one).",
        [
            ("tokens_sampled", "tokens sampled", ",.0f", 1),
            ("responses_scored", "responses scored", ",.0f", 1),
            ("tokens_trained", "tokens trained", ",.0f", 1),
            ("seconds", "seconds", ",.0f", 1),
            ("samples_per_answer", "responses per answer", ",.0f", 1),
        ],
    ),
]

#: Of which measures the best is bold, and which that is.
BEST = {
    "control": max, "hypervolume": max, "mean_vr": max, "worst_regret": min, "unseen_mean_vr": max,
}  # fmt: skip
