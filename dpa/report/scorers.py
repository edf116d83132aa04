"""Who scored what in an experiment, in sentences: reward models, ratings, feedback, the judge.

They are computed from the configuration, and from what the models' sidecars say of their training.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from dpa.artefacts.frames import read_csv_table
from dpa.artefacts.sidecars import read_sidecar

#: Who rates samples, by the kind of annotator.
RATERS = {
    "gold": "the quickstart's noisy annotators",
    "endpoint": "the language model {model}",
    "reward_model": "the reward model {model[path]}",
    "file": "people",
}


def lacks_judge(config: dict) -> bool:
    """Whether policies are compared by nothing but the reward model that selected for them."""
    evaluation = config["evaluation"]
    compared = bool(config["data"]["train_prompts"])
    return compared and not evaluation["judge"] and not evaluation["gold"]


def no_judge(config: dict) -> str:
    """What must be known where rewards have no second opinion."""
    if has_feedback(config):
        return (
            "No independent scorer (evaluation.judge is null): all rewards here are those of the "
            "first reward model, which selected in DPA's first iteration and in none after it; "
            "what is gained by it need be no gain, and what is lost no loss."
        )
    return (
        "No independent scorer (evaluation.judge is null): all rewards here are those of the model "
        "that responses were selected by, and what it gains need not be a gain."
    )


def has_feedback(config: dict) -> bool:
    """Whether DPA's iterations after the first select by reward models of their own."""
    return config["feedback"]["annotator"] is not None and config["dpa"]["iterations"] > 1


def name_scorer(config: dict) -> str:
    """Who gives the rewards `r_*`, the first of SCORER_NAMES, in this experiment."""
    given = config["reward_model"]
    first = "first " if has_feedback(config) else ""
    if (members := given["members"]) > 1 and not given["average"]:
        return f"mean of the {first}{members} reward models"
    return f"{first}reward model"


def describe_scorers(folder: Path, config: dict) -> Iterator[str]:
    """Paragraphs for results/<experiment>/ (`folder`). Raises InputError for a missing sidecar."""
    seeds = config["seed"]
    run = folder / f"seed{seeds[0]}" if isinstance(seeds, list) else folder
    if isinstance(seeds, list) and len(seeds) > 1:
        yield f"Numbers in this section are those of seed {seeds[0]}, the first of {len(seeds)}."
    yield from _reward_models(run, config["reward_model"], config["dpa"]["pessimism"])
    if config["data"]["train_prompts"] and "dpa" in config["methods"]:
        yield from _feedback(run, config)
    yield from _judge(run, folder, config)


def first_of(members: int, seeds: int) -> str:
    """Whose numbers are shown where a table has one model's, as a sentence; or nothing."""
    several = {"reward models": members, "seeds": seeds}
    counts = [f"the {count} {noun}" for noun, count in several.items() if count > 1]
    return f" Of {' and '.join(counts)} these are the first's numbers." if counts else ""


def _reward_models(run: Path, given: dict, pessimism: str | dict) -> Iterator[str]:
    """The models that select, and what they learnt."""
    if given["path"] is not None:
        yield f"The reward model is a given one, {given['path']}."
        return
    members = given["members"]
    # An average learnt nothing itself.
    model = run / f"reward_model{'/member1' if given['average'] else ''}/model"
    learnt = _learnt(model)
    if members == 1:
        yield f"The reward model learnt {learnt}."
    elif given["average"]:
        yield (
            f"The reward model is the average of {members}, each of which learnt {learnt}; the "
            "average alone scores."
        )
    else:
        match pessimism:
            case {"penalty": penalty}:
                maximised = f"the mean less {penalty:g} standard deviations"
            case _:
                maximised = {"none": "the mean", "min": "the minimum"}[str(pessimism)]
        yield (
            f"{members} reward models score, alike but for their seeds; each learnt {learnt}. "
            f"Selection maximises {maximised} of their v·r; rewards in tables and figures are "
            "their means. Agreement with held-out ratings and RewardBench's accuracy are the "
            "first one's."
        )


def _learnt(model: Path) -> str:
    """How many ratings a model was trained on, by origin."""
    return _counts(read_sidecar(model).get("origins", {}))


def _counts(origins: Mapping[str, int]) -> str:
    parts = ", ".join(f"{count:,} of {name}" for name, count in origins.items())
    total = f"{sum(origins.values()):,} ratings"
    return f"{total} ({parts})" if len(origins) > 1 else f"{total}, all {parts.partition(' ')[2]}"


def _feedback(run: Path, config: dict) -> Iterator[str]:
    """What was rated between DPA's iterations, by whom, and who learnt it."""
    if not has_feedback(config):
        return
    annotator, iterations = config["feedback"]["annotator"], config["dpa"]["iterations"]
    rated = []
    for t in range(1, iterations):
        sidecar = read_sidecar(run / f"feedback/iter{t}/ratings.jsonl")
        counts, asked = f"{sidecar['rated']:,}", sidecar["asked"]
        of = f" of {asked:,} asked for" if asked != sidecar["rated"] else ""
        rated.append(f"{counts} responses of iteration {t}{of}")
    learnt = [
        f"{sum(origins.values()):,} for t = {t}"
        for t in range(2, iterations + 1)
        if (origins := read_sidecar(run / f"feedback/iter{t}/reward_model/model").get("origins"))
    ]
    who = RATERS[annotator["kind"]].format(**annotator)
    yield (
        f"Between DPA's iterations samples were rated by {who}: {', '.join(rated)}. The reward "
        "model that selects in iteration t from 2 on learns all ratings from before it "
        f"({', '.join(learnt)}). Tables, figures, agreement with held-out ratings and "
        "RewardBench's accuracy are the first reward model's, which learnt none of them."
    )


def _judge(run: Path, folder: Path, config: dict) -> Iterator[str]:
    """The scorer that never selects, or that there is none."""
    judge = config["evaluation"]["judge"]
    if judge is None:
        if config["evaluation"]["gold"]:
            yield (
                "The world's gold scorer, which knows the truth and never selects, stands beside "
                "the reward model; there is no learnt judge (evaluation.judge is null)."
            )
        elif lacks_judge(config):
            yield no_judge(config)
        return
    own = (
        f"is a given model, {judge['path']}"
        if "path" in judge
        else f"learnt {_learnt(run / 'judge/model')}, which no reward model saw"
    )
    table = read_csv_table(folder / "tables/reward_model.csv")
    beside = " and ".join(
        f"the {name}'s by {found['pearson'].median():.2f}"
        for scorer, name in (("judge", "judge"), ("reward_model", "reward model"))
        if len(found := agreed(table, scorer))
    )
    compared = (
        f" Outputs correlate with held-out ratings (Pearson, the median over them): {beside}."
        if beside
        else " Its outputs are not those that held-out ratings have."
    )
    yield f"The judge never selects; it {own}.{compared}"


def agreed(table: pd.DataFrame, scorer: str = "reward_model") -> pd.DataFrame:
    """The rows of tables/reward_model.csv that compare a scorer's outputs with ratings."""
    own = table[table["scorer"] == scorer] if "scorer" in table else table
    return own.dropna(subset=["pearson"])
