"""A policy that leaves the folder it was made in: self-contained, with a model card, on the hub."""

import shutil
from pathlib import Path

from dpa.artefacts.files import CARD
from dpa.artefacts.outputs import save_folder
from dpa.artefacts.sidecars import write_sidecar
from dpa.errors import InputError
from dpa.models import AnyModel, ModelRef, load_model, load_tokenizer
from dpa.runtime.log import log
from dpa.serving.card import check_repository, model_card, read_run
from dpa.serving.steering import STEERING_FILE, read_steering
from dpa.training.saving import save_checkpoint


def export_policy(
    policy: AnyModel, output: Path, repository: str | None, licence: str | None
) -> None:
    """Write a policy in bfloat16 with its template, steering.json, and a model card as README.md.

    Policies are saved with LoRA merged. With `repository` (organisation/name) the folder is then
    uploaded to the hub, which the card names. Raises InputError for a policy that is not steered.
    """
    import torch
    from transformers import AutoModelForCausalLM

    check_repository(repository)
    steering = read_steering(policy)
    run = read_run(policy)
    tokenizer = load_tokenizer(policy)
    model = load_model(AutoModelForCausalLM, policy, dtype=torch.bfloat16)
    name = repository or output.name

    def save(folder: Path) -> None:
        save_checkpoint(model, tokenizer, folder)
        content = steering.model_dump_json(indent=1, exclude_none=True)
        (folder / STEERING_FILE).write_text(content + "\n", encoding="utf-8")
        card = model_card(steering, run, name, licence)
        (folder / CARD).write_text(card, encoding="utf-8")
        if run.figure:
            shutil.copy(run.figure, folder / "figure4.png")

    save_folder(output, save)
    write_sidecar(output, [ModelRef.of(policy).path], takes=steering.takes)
    if repository is not None:
        push_folder(output, repository)


def push_folder(folder: Path, repository: str) -> None:
    """Upload a folder as a model repository of the hub, which is made where there is none.

    Raises InputError when the hub does not take it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError as ConnectionFailed  # type: ignore[attr-defined]

    api = HfApi()
    try:
        made = api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id, folder_path=folder, commit_message="Export a policy of dpa"
        )
    except (ConnectionFailed, OSError, ValueError) as error:
        raise InputError(
            f"{repository}: the hub does not take {folder} "
            f"({' '.join(str(error).split()):.200}); check the name, and `hf auth login` with a "
            "token that may write"
        ) from None
    log.info("%s: uploaded as %s", folder, made.url)
