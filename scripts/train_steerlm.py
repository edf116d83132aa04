"""Train SteerLM: SFT on annotated responses with their rewards in the system prompt.

Rules: train_initial_policy (on D2: DPA's policy of iteration 0), train_steerlm (on all training
prompts: the baseline) and train_ric (an iteration of Rewards-in-Context continues from a policy, on
responses of its own too). Example:

    python -m scripts.train_steerlm --policy sft/policy --annotations annotations/0.jsonl \
        --prompts data/prompts/d2.jsonl --seed 0 --output dpa/iter0/policy
"""

from functools import partial

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.options import (
    AnnotationsOption,
    ModelsOption,
    ObjectivesOption,
    OptionalIterationOption,
    OutputFolderOption,
    PolicyOption,
    PromptFilesOption,
    ScheduleOption,
    SeedOption,
    TrainerOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    policy: PolicyOption,
    annotations: AnnotationsOption,
    prompts: PromptFilesOption,
    seed: SeedOption,
    output: OutputFolderOption,
    iteration: OptionalIterationOption = None,
    objectives: ObjectivesOption = None,
    models: ModelsOption = None,
    schedule: ScheduleOption = None,
    trainer: TrainerOption = None,
) -> None:
    """Train SteerLM on annotated responses."""
    from dpa.artefacts.jsonl import decode_lines
    from dpa.artefacts.row_counts import RowCounts
    from dpa.config.chat import ModelsConfig
    from dpa.config.steering import ObjectivesConfig
    from dpa.config.trainer import ScheduleConfig, TrainerConfig
    from dpa.methods.sft import finetune_conversations
    from dpa.methods.steerlm import annotated_conversations
    from dpa.models import ModelRef
    from dpa.records import Prompt
    from dpa.seeds import derive_seed
    from dpa.serving.furnish import furnish_policy
    from dpa.serving.steering import PolicySteering
    from dpa.training.trainer import TrainingJob

    steering = PolicySteering(
        takes="condition",
        objectives=read_section(ObjectivesConfig, objectives, "objectives", "objectives"),
    )
    wanted = {prompt.prompt_id for path in prompts for prompt in decode_lines(path, Prompt)}
    row_counts = RowCounts()
    finetune_conversations(
        TrainingJob(
            ModelRef.of(policy),
            output,
            read_section(TrainerConfig, trainer, "trainer", "trainer"),
            read_section(ScheduleConfig, schedule, "schedule", "steerlm.schedule"),
            derive_seed(seed, *(["steerlm"] if iteration is None else ["ric", iteration])),
            inputs=(*annotations, *prompts),
            models=read_section(ModelsConfig, models, "models", "models"),
            furnish=partial(furnish_policy, steering),
        ),
        annotated_conversations(annotations, wanted, steering.names, row_counts),
        row_counts,
        last_answer_only=True,
    )


if __name__ == "__main__":
    run_app(app)
