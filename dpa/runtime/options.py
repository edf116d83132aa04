"""Command-line options that several scripts have: a flag means one thing in all of them.

Models are folders or `organisation/name@commit`; sections are JSON or `@file`, laid over
config.yaml's; what is written has a flag that begins with --output.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

# --- Models ----------------------------------------------------------------------------------

PolicyOption = Annotated[
    str, typer.Option("--policy", help="A policy: folder, or organisation/name@commit.")
]
BaseModelOption = Annotated[
    str, typer.Option("--base-model", help="A causal LM: folder, or organisation/name@commit.")
]
_REWARD_MODEL = "A reward model: folder, or organisation/name@commit."
RewardModelOption = Annotated[str, typer.Option("--reward-model", help=_REWARD_MODEL)]
OptionalRewardModelOption = Annotated[
    str | None, typer.Option("--reward-model", help=_REWARD_MODEL)
]
JudgeByOption = Annotated[
    Path | None,
    typer.Option(
        "--judge-by", help="Reward model's folder; default: that of the policy's experiment."
    ),
]
EngineOption = Annotated[
    Literal["transformers", "vllm"],
    typer.Option("--engine", help="What runs the reward model."),
]
AttributesOption = Annotated[
    str | None,
    typer.Option("--attributes", help="Names of the reward model's outputs, in order, by commas."),
]
TokensPerBatchOption = Annotated[
    int, typer.Option("--tokens-per-batch", min=1, help="Most tokens scored at a time.")
]

# --- Files that are read ---------------------------------------------------------------------

_PROMPTS = "Prompts (JSONL, one schema for all prompt files)."
PromptsOption = Annotated[Path, typer.Option("--prompts", help=_PROMPTS)]
PromptFilesOption = Annotated[list[Path], typer.Option("--prompts", help=_PROMPTS)]
OptionalPromptsOption = Annotated[Path | None, typer.Option("--prompts", help=_PROMPTS)]
RatingsOption = Annotated[Path, typer.Option("--ratings", help="Ratings that prepare_data wrote.")]
AnnotationsOption = Annotated[
    list[Path], typer.Option("--annotations", help="Annotated original responses, a shard each.")
]
_SAMPLES = "Responses of a policy (JSONL of samples)."
SamplesOption = Annotated[Path, typer.Option("--samples", help=_SAMPLES)]
SampleFilesOption = Annotated[list[Path], typer.Option("--samples", help=_SAMPLES)]
ScoredOption = Annotated[
    list[Path], typer.Option("--scored", help="Scored samples (JSONL), a shard or a policy each.")
]
JudgedOption = Annotated[
    list[Path],
    typer.Option("--judged", help="The same samples scored by the judge (JSONL), a policy each."),
]
ConditionsOption = Annotated[
    Path | None,
    typer.Option("--conditions", help="SteerLM's conditions, for a policy that takes them."),
]
RangesOption = Annotated[
    Path | None,
    typer.Option("--ranges", help="Worst and best rewards, for Rewards-in-Context's policies."),
]
PairsOption = Annotated[Path, typer.Option("--pairs", help="Preference pairs (JSONL).")]
RunsOption = Annotated[
    list[Path], typer.Option("--run", help="Folder of a run: results/<experiment>, a seed each.")
]
ResultsOption = Annotated[Path, typer.Option("--results", help="The experiment's folder.")]
PublishedOption = Annotated[Path, typer.Option("--published", help="The paper's numbers (CSV).")]
PromptRewardsOption = Annotated[
    list[Path],
    typer.Option("--prompt-rewards", help="prompt_rewards.parquet of a run, a seed each."),
]
MetricsOption = Annotated[Path, typer.Option("--metrics", help="metrics.csv")]

# --- Sections of the configuration -----------------------------------------------------------

ObjectivesOption = Annotated[
    str | None, typer.Option("--objectives", help="config.yaml's objectives (JSON, or @file).")
]
ObjectiveNamesOption = Annotated[
    str, typer.Option("--objective-names", help="The objectives' names in order, by commas.")
]
DirectionsOption = Annotated[
    str | None,
    typer.Option("--directions", help="Distribution of directions (JSON, or @file)."),
]
GridOption = Annotated[
    str,
    typer.Option("--grid", help="Evaluated directions: their number, or a JSON list of them."),
]
CurvePointsOption = Annotated[
    int,
    typer.Option("--curve-points", min=2, help="The paper's conditions on SteerLM's curve."),
]
ModelsOption = Annotated[
    str | None, typer.Option("--models", help="Over config.yaml's models (JSON, or @file).")
]
SamplingOption = Annotated[
    str | None, typer.Option("--sampling", help="Over config.yaml's sampling (JSON, or @file).")
]
TrainerOption = Annotated[
    str | None, typer.Option("--trainer", help="Over config.yaml's trainer (JSON, or @file).")
]
ScheduleOption = Annotated[
    str | None,
    typer.Option("--schedule", help="Over config.yaml's schedule of the stage (JSON, or @file)."),
]
PessimismOption = Annotated[
    str | None,
    typer.Option(
        "--pessimism", help='config.yaml\'s dpa.pessimism as JSON: "min", {"penalty": 0.5}.'
    ),
]
SourceOption = Annotated[
    str, typer.Option("--source", help="Where the benchmark's rows are read from (JSON).")
]
SectionsOption = Annotated[
    str | None,
    typer.Option("--sections", help="config.yaml's rewardbench.sections (JSON, or @file)."),
]

# --- Numbers and names -----------------------------------------------------------------------

MAX_SEED = 2**63 - 1  # of torch's generators
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Base seed.")]
SeedsOption = Annotated[list[int], typer.Option("--seed", min=0, max=MAX_SEED, help="Base seed.")]
_ITERATION = "Number of the iteration, from 1."
IterationOption = Annotated[int, typer.Option("--iteration", min=1, help=_ITERATION)]
OptionalIterationOption = Annotated[int | None, typer.Option("--iteration", min=1, help=_ITERATION)]
ShardOption = Annotated[int, typer.Option("--shard", min=0, help="Which shard, from 0.")]
ShardsOption = Annotated[int, typer.Option("--shards", min=1, help="Number of shards.")]
MembersOption = Annotated[
    int,
    typer.Option(
        "--members", min=1, help="Reward models whose files are given, one model's after another's."
    ),
]
ModelsScoringOption = Annotated[
    int, typer.Option("--reward-models", min=1, help="Reward models of a seed that score.")
]
DirectionsPerPromptOption = Annotated[
    int, typer.Option("--directions-per-prompt", min=1, help="Directions drawn for each prompt.")
]
ResponsesPerDirectionOption = Annotated[
    int, typer.Option("--responses-per-direction", min=1, help="Responses under each direction.")
]
ResponsesPerPromptOption = Annotated[
    int,
    typer.Option("--responses-per-prompt", min=1, help="Responses to a prompt (and direction)."),
]
ThresholdOption = Annotated[
    float,
    typer.Option(
        "--threshold",
        min=0,
        max=0.999,
        help="Quantile that some reward of a kept response reaches.",
    ),
]
DirectionOption = Annotated[
    str | None,
    typer.Option("--direction", help="Unit vector, one weight per objective: 0.8,-0.6"),
]
BetaOption = Annotated[
    float,
    typer.Option(
        "--beta", min=0, help="Strength of the pull to the policy that training starts from."
    ),
]
TemperatureOption = Annotated[float, typer.Option("--temperature", min=0, help="0 is greedy.")]
MaxNewTokensOption = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")]
DatasetOption = Annotated[
    str, typer.Option("--dataset", help="Whose responses are meant: a name in data.ratings.")
]
GoldOption = Annotated[str | None, typer.Option("--gold", help="A gold scorer: quickstart.")]
ReferenceOption = Annotated[
    str, typer.Option("--hypervolume-reference", help="Worst corner of the rewards, by commas.")
]
ExperimentOption = Annotated[
    str,
    typer.Option("--experiment", help="The experiment: its name, or where it is read its file."),
]
ConfigHashOption = Annotated[
    str, typer.Option("--config-hash", help="Identifies the configuration.")
]
StagesOption = Annotated[
    str,
    typer.Option("--stages", help="Method -> its stages, folders below the run (JSON, or @file)."),
]
WorldOption = Annotated[
    bool, typer.Option("--world", help="The benchmark is the quickstart's own.")
]
FigureStyleOption = Annotated[
    str | None, typer.Option("--figure-style", help="figures.style (JSON, or @file).")
]
DrawPublishedOption = Annotated[
    bool, typer.Option("--draw-published", help="Draw the paper's numbers beneath ours.")
]

CacheOption = Annotated[
    Path, typer.Option("--cache", help="Where answers of models asked over HTTP are kept.")
]

# --- What is written -------------------------------------------------------------------------

#: Of an output that is no file, behind its option: a folder that is written as a whole, a folder in
#: which files are written, or a file or a folder.
FOLDER, FILES_WITHIN, EITHER = "a folder", "files within", "either"

_OUTPUT = typer.Option("--output", help="What is written.")
OutputOption = Annotated[Path, _OUTPUT]
OutputFolderOption = Annotated[Path, _OUTPUT, FOLDER]
OutputFilesOption = Annotated[Path, _OUTPUT, FILES_WITHIN]
OutputPromptsOption = Annotated[
    Path, typer.Option("--output-prompts", help="Prompts that are written.")
]
OutputFiguresOption = Annotated[
    Path,
    typer.Option("--output-figures", help="Folder of figures that are written."),
    FILES_WITHIN,
]
OutputTablesOption = Annotated[
    Path,
    typer.Option("--output-tables", help="Folder of tables that are written."),
    FILES_WITHIN,
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace what is there, whatever made it; never what is read."
    ),
]
