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

from dpa.cli import log, make_app, parse, run

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
    from dpa.base_model import make_model, rated_texts, train_tokenizer
    from dpa.config import Scratch, Source, Training
    from dpa.provenance import Losses, save_folder, write_sidecar
    from dpa.seeds import derive_seed
    from dpa.sources import describe, read_messages
    from dpa.training import finetune, save_policy, tokenise_documents

    shape = parse(Scratch, scratch, "scratch")
    sources = [parse(Source, source, "documents") for source in documents]
    conversations = [turns for source in sources for turns in read_messages(source)]
    losses = Losses()
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
            parse(Training, training, "training"),
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
