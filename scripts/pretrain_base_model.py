"""Make a small base model from scratch: tokenizer, architecture and, with documents, pretraining.

Rule: pretrain_base_model (only where base_model.path is null). Example:

    python -m scripts.pretrain_base_model --documents pretraining.jsonl --ratings ratings.jsonl \
        --scratch '{"vocab_size": 1024, ...}' --training '{...}' --seed 0 --output base_model

Writes a folder that AutoModelForCausalLM loads. The tokenizer is learnt from the documents, or
without documents from the ratings; then the weights stay random.
"""

from pathlib import Path
from typing import Annotated

import typer

from dpa.runtime.cli import make_app, parse, run
from dpa.runtime.log import log

app = make_app()


@app.command()
def main(
    ratings: Annotated[Path, typer.Option(help="ratings.jsonl")],
    scratch: Annotated[str, typer.Option(help="config.yaml's base_model.scratch (JSON).")],
    training: Annotated[str, typer.Option(help="config.yaml's training (JSON).")],
    seed: Annotated[int, typer.Option(min=0, help="Base seed.")],
    output: Annotated[Path, typer.Option()],
    documents: Annotated[list[str], typer.Option(help="Sources (JSON) of documents.")] = [],  # noqa: B006
) -> None:
    """Make a small base model from scratch."""
    from dpa.artefacts.files import save_folder
    from dpa.artefacts.row_counts import RowCounts
    from dpa.artefacts.sidecars import write_sidecar
    from dpa.config.data import SourceConfig, describe
    from dpa.config.trainer import ScratchConfig, TrainerConfig
    from dpa.data.sources import read_messages
    from dpa.methods.sft import finetune, tokenise_documents
    from dpa.quickstart.base_model import make_model, rated_texts, train_tokenizer
    from dpa.seeds import derive_seed
    from dpa.training.trainer import save_policy

    shape = parse(ScratchConfig, scratch, "scratch")
    sources = [parse(SourceConfig, source, "documents") for source in documents]
    conversations = [turns for source in sources for turns in read_messages(source)]
    losses = RowCounts()
    learnt = (turn["content"] for messages in conversations for turn in messages)
    texts = learnt if conversations else rated_texts(ratings, losses)
    tokenizer = train_tokenizer(texts, shape.vocab_size)
    model = make_model(tokenizer, shape, derive_seed(seed, "base-model"))
    log.info("%.2f M parameters, %d tokens", model.num_parameters() / 1e6, len(tokenizer))
    inputs: list[Path | str] = [ratings, *(describe(source) for source in sources)]
    if conversations and shape.pretraining.epochs:
        rows = tokenise_documents(tokenizer, conversations, shape.pretraining.max_length, losses)
        finetune(
            model,
            tokenizer,
            rows,
            output,
            parse(TrainerConfig, training, "training"),
            shape.pretraining,
            derive_seed(seed, "pretraining"),
            losses=losses,
            inputs=inputs,
        )
    else:
        save_folder(output, lambda folder: save_policy(model, tokenizer, folder))
        losses.read += len(conversations)
        write_sidecar(output, inputs, losses, parameters=model.num_parameters())


if __name__ == "__main__":
    run(app)
