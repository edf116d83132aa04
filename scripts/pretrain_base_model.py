"""Make a small base model from scratch: tokenizer, architecture and, with documents, pretraining.

Rule: pretrain_base_model (only where base_model.path is null). Example:

    python -m scripts.pretrain_base_model --documents pretraining.jsonl --ratings ratings.jsonl \
        --scratch '{"vocab_size": 1024}' --seed 0 --output base_model

Writes a folder that AutoModelForCausalLM loads. The tokenizer is learnt from the documents, or
without documents from the ratings; then the weights stay random.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, run_app
from dpa.runtime.log import log
from dpa.runtime.options import (
    ModelsOption,
    OutputFolderOption,
    RatingsOption,
    SeedOption,
    TrainerOption,
)
from dpa.runtime.sections import read_section

app = make_app()


@app.command()
def main(
    ratings: RatingsOption,
    seed: SeedOption,
    output: OutputFolderOption,
    documents: Annotated[list[str] | None, typer.Option(help="Source (JSON) of documents.")] = None,
    scratch: Annotated[
        str | None, typer.Option(help="Over config.yaml's base_model.scratch (JSON, or @file).")
    ] = None,
    models: ModelsOption = None,
    trainer: TrainerOption = None,
) -> None:
    """Make a small base model from scratch."""
    from dpa.artefacts.outputs import save_folder
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.chat import ModelsConfig
    from dpa.config.data import SourceConfig, describe
    from dpa.config.trainer import ScratchConfig, TrainerConfig
    from dpa.data.sources import read_messages
    from dpa.methods.sft import Finetuning, tokenise_documents
    from dpa.quickstart.base_model import make_model, rated_texts, train_tokenizer
    from dpa.seeds import derive_seed
    from dpa.text.tokenization import ChatTokenizer
    from dpa.training.trainer import TrainingJob, run_training, save_policy

    shape = read_section(ScratchConfig, scratch, "scratch", "base_model.scratch")
    sources = [read_section(SourceConfig, source, "documents") for source in documents or []]
    row_counts = RowCounts()
    conversations = [turns for source in sources for turns in read_messages(source, row_counts)]
    learnt = (turn["content"] for messages in conversations for turn in messages)
    texts = learnt if conversations else rated_texts(ratings, row_counts)
    tokenizer = train_tokenizer(texts, shape.vocab_size)
    model = make_model(tokenizer, shape, derive_seed(seed, "base-model"))
    log.info("%.2f M parameters, %d tokens", model.num_parameters() / 1e6, len(tokenizer))
    inputs: list[Path | str] = [ratings, *(describe(source) for source in sources)]
    if conversations and shape.schedule.epochs:
        chat = ChatTokenizer(tokenizer, read_section(ModelsConfig, models, "models", "models"))
        rows = tokenise_documents(chat, conversations, shape.schedule.max_length, row_counts)
        job = TrainingJob(
            model,
            output,
            read_section(TrainerConfig, trainer, "trainer", "trainer"),
            shape.schedule,
            derive_seed(seed, "pretraining"),
            inputs=tuple(inputs),
        )
        run_training(Finetuning(job, chat, rows, row_counts))
    else:
        save_folder(output, lambda folder: save_policy(model, tokenizer, folder))
        row_counts.read += len(conversations)
        write_sidecar(output, inputs, row_counts, parameters=model.num_parameters())


if __name__ == "__main__":
    run_app(app)
