"""Outputs of commands: nothing is replaced that is not theirs, and one process writes at a time."""

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

from dpa.artefacts.jsonl import write_jsonl
from dpa.records import Prompt, Sample
from tests.support.script_processes import LIGHT, Done, processes

TABLE = "method,iteration,seed,direction_index,mean_tokens,n\ndpa,1,0,0,9.5,4\n"
MINE = "a day's work\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A user's folder, with what two commands read that load no model."""
    for seed in (0, 1):
        (tmp_path / f"seed{seed}.csv").write_text(TABLE)
    write_jsonl(tmp_path / "prompts.jsonl", [Prompt(prompt_id="a", prompt="Why?", source="test")])
    sample = Sample(
        prompt_id="a", direction_index=0, direction=None, sample_index=0, seed=0, response="So.",
        finish_reason="stop", prompt_tokens=1, response_tokens=1,
    )  # fmt: skip
    write_jsonl(tmp_path / "dpa-1.jsonl", [sample])
    return tmp_path


def collect(folder: Path, output: str, *flags: str, rewards: str = "seed0.csv") -> Done:
    """A command that writes a file."""
    return start(folder, "collect_seeds", "--rewards", rewards, "--output", output, *flags)


def export(folder: Path, output: str, *flags: str) -> Done:
    """A command that writes a folder."""
    read = ("--samples", "dpa-1.jsonl", "--prompts", "prompts.jsonl")
    return start(folder, "export_alpacaeval", *read, "--output", output, *flags)


def train(folder: Path, output: str, *flags: str) -> Done:
    """A command that trains a model; none of those below may come so far."""
    read = ("--base-model", "none", "--demonstrations", '{"path": "prompts.jsonl"}', "--seed", "0")
    return start(folder, "train_sft", *read, "--output", output, *flags)


def start(folder: Path, script: str, *arguments: str) -> Done:
    return processes(LIGHT).run(script, arguments, folder)


def refused(done: Done, *fragments: str) -> None:
    """One sentence, before anything heavy is imported."""
    assert done.code == 2, done.output
    assert "Traceback" not in done.output
    assert done.output.count("error:") == 1
    for fragment in fragments:
        assert fragment in done.output, done.output
    assert "torch" not in done.imported


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but the logs of its processes."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith(".job")
    }


# --- What is ours ----------------------------------------------------------------------------


def test_a_command_replaces_what_it_has_made(folder):
    before = contents(folder)
    for _ in range(2):
        assert collect(folder, "out/all.csv").code == 0
        assert export(folder, "out/outputs").code == 0
    assert set(contents(folder)) - set(before) == {
        "out/all.csv", "out/all.csv.meta.json", "out/outputs.meta.json", "out/outputs/dpa-1/0.json",
    }  # fmt: skip
    assert json.loads((folder / "out/all.csv.meta.json").read_text())["stage"] == "collect_seeds"


def test_a_file_of_a_users_own_is_replaced_only_when_they_say_so(folder):
    (folder / "notes.csv").write_text(MINE)
    before = contents(folder)
    refused(collect(folder, "notes.csv"), "notes.csv: is there already", "--overwrite")
    assert contents(folder) == before
    assert collect(folder, "notes.csv", "--overwrite").code == 0
    assert (folder / "notes.csv").read_text() != MINE


@pytest.mark.parametrize("command", [export, train])
def test_a_folder_of_a_users_own_is_left_alone(folder, command):
    (folder / "models").mkdir()
    (folder / "models/notes.txt").write_text(MINE)
    before = contents(folder)
    refused(command(folder, "models"), "models: is there already", "--overwrite")
    assert contents(folder) == before


def test_a_folder_is_replaced_when_they_say_so(folder):
    (folder / "models").mkdir()
    (folder / "models/notes.txt").write_text(MINE)
    assert export(folder, "models", "--overwrite").code == 0
    assert not (folder / "models/notes.txt").exists()


def test_what_another_command_made_is_left_alone(folder):
    assert export(folder, "outputs").code == 0
    before = contents(folder)
    refused(train(folder, "outputs"), "export_alpacaeval has made it")
    assert contents(folder) == before


@pytest.mark.parametrize("edited", ["all.csv", "outputs/notes.txt", "outputs/README.md"])
def test_what_was_edited_since_is_left_alone(folder, edited):
    """A user who corrects a table or a card, or puts notes beside a model, keeps all of them."""
    command = collect if edited == "all.csv" else export
    output = edited.split("/")[0]
    assert command(folder, output).code == 0
    (folder / edited).write_text(MINE)
    before = contents(folder)
    refused(command(folder, output), "was changed after it was made")
    assert contents(folder) == before


def test_an_empty_place_is_free(folder):
    """As mktemp makes it."""
    (folder / "all.csv").touch()
    (folder / "outputs").mkdir()
    assert collect(folder, "all.csv").code == 0
    assert export(folder, "outputs").code == 0


@pytest.mark.parametrize("name", ["all.csv.partial", "all.csv.partial.for", "all.csv.meta.json"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_files_at_the_names_beside_an_output_are_left_alone(folder, name, kind):
    (folder / "elsewhere").write_text(MINE)
    if kind == "file":
        (folder / name).write_text(MINE)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to("elsewhere")
    before = contents(folder)
    refused(collect(folder, "all.csv"), name, "rename it" if "partial" in name else "move it away")
    assert contents(folder) == before
    assert (folder / name).is_symlink() == (kind == "link")


def test_a_finished_file_that_a_kill_left_without_a_sidecar_is_replaced(folder):
    kill = {"fault": "tests.support.faults:killed_before_any_sidecar"}
    read = ["--rewards", "seed0.csv", "--output", "all.csv"]
    assert processes(LIGHT).run("collect_seeds", read, folder, **kill).code == -9
    assert (folder / "all.csv").exists()
    assert not (folder / "all.csv.meta.json").exists()
    left = shutil.copytree(folder, folder.with_name("edited"))
    assert collect(folder, "all.csv").code == 0
    # Not once it is another file.
    (left / "all.csv").write_text(MINE)
    refused(collect(left, "all.csv"), "collect_seeds has not made it")


# --- Inputs ----------------------------------------------------------------------------------


def same(folder: Path) -> str:
    return "seed0.csv"


def link(folder: Path) -> str:
    (folder / "all.csv").symlink_to("seed0.csv")
    return "all.csv"


def hard_link(folder: Path) -> str:
    os.link(folder / "seed0.csv", folder / "all.csv")
    return "all.csv"


def linked_folder(folder: Path) -> str:
    (folder / "here").symlink_to(".")
    return "here/seed0.csv"


def around(folder: Path) -> str:
    return "."


def dots(folder: Path) -> str:
    (folder / "sub").mkdir()
    return "sub/../seed0.csv"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", [same, link, hard_link, linked_folder, around, dots])
def test_what_is_read_is_never_replaced(folder, name, overwrite):
    output = name(folder)
    before = contents(folder)
    refused(collect(folder, output, *overwrite), "choose another place")
    assert contents(folder) == before


@pytest.mark.parametrize("suffix", [".partial", ".partial.for", ".meta.json"])
def test_an_input_with_a_name_beside_the_output_is_left_alone(folder, suffix):
    """It was emptied, filled and renamed."""
    rewards = f"all.csv{suffix}"
    (folder / "seed0.csv").rename(folder / rewards)
    before = contents(folder)
    refused(collect(folder, "all.csv", "--overwrite", rewards=rewards), f"would replace {rewards}")
    assert contents(folder) == before


def test_an_input_that_is_named_as_partial_files_were(folder):
    (folder / "seed0.csv").rename(folder / "all.partial.csv")
    assert collect(folder, "all.csv", rewards="all.partial.csv").code == 0
    assert (folder / "all.partial.csv").read_text() == TABLE


@pytest.mark.parametrize(
    ("output", "message"),
    [("model", "would replace model"), ("model/all", "is inside model"), (".", "holds")],
)
def test_a_model_that_is_read_holds_no_output(folder, output, message):
    (folder / "model").mkdir()
    (folder / "model/config.json").write_text("{}")
    before = contents(folder)
    arguments = ("--base-model", "model", "--demonstrations", '{"path": "x"}', "--seed", "0")
    done = start(folder, "train_sft", *arguments, "--output", output, "--overwrite")
    refused(done, message)
    assert contents(folder) == before


def test_data_that_a_section_names_is_read(folder):
    before = contents(folder)
    data = json.dumps(
        {
            "ratings": [],
            "train_prompts": [{"path": "prompts.jsonl"}],
            "validation_prompts": [{"path": "prompts.jsonl"}],
        }
    )
    outputs = [f"--output-{name}={name}" for name in ("ratings", "d1", "d2")]
    done = start(
        folder, "prepare_data", "--seed=0", *outputs, "--output-validation=prompts.jsonl",
        "--data", data, "--overwrite",
    )  # fmt: skip
    refused(done, "would replace prompts.jsonl")
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("d2", "message"),
    [("d1", "is needed for d1"), ("./x/../d1", "d1"), ("d1.partial", "d1"), ("d1/d2", "inside d1")],
)
def test_each_output_has_a_place_of_its_own(folder, d2, message):
    (folder / "x").mkdir()
    names = {"ratings": "r", "d1": "d1", "d2": d2, "validation": "v"}
    outputs = [f"--output-{name}={value}" for name, value in names.items()]
    refused(start(folder, "prepare_data", "--seed=0", *outputs), message)


# --- Places ----------------------------------------------------------------------------------

PLACES = [
    ("a folder", "prompts", "is a folder"),
    ("the working directory", "", "choose another place"),
    ("its parent", "..", "choose another place"),
    ("below a file", "seed1.csv/all.csv", "a part of its path is a file"),
    ("a name of 255 characters", "x" * 251 + ".csv", "the name is too long"),
    ("a path of 5000 characters", "x/" * 2500 + "all.csv", "the name is too long"),
    ("a device", "/dev/null", "is a device or a pipe"),
    ("a pipe", "pipe", "is a device or a pipe"),
    ("a link in a circle", "circle", "is there already"),
    ("where nobody may write", "/proc/all.csv", "cannot be written"),
]


@pytest.mark.parametrize(("what", "output", "message"), PLACES, ids=[p[0] for p in PLACES])
def test_places_where_nothing_can_be_written(folder, what, output, message):
    (folder / "prompts").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to("circle")
    before = set(folder.rglob("*"))
    flags = ["--overwrite"] if what == "a folder" else []
    refused(collect(folder, output, *flags), message)
    left = {p for p in set(folder.rglob("*")) - before if not p.name.startswith(".job")}
    assert left == set()


def test_a_linked_results_folder_and_names_of_any_kind(folder):
    (folder / "disk").mkdir()
    (folder / "results").symlink_to("disk")
    for output in ("results/a.csv", "mit Leerzeichen/größer.csv", "-all.csv", "a\nb.csv"):
        assert collect(folder, f"./{output}").code == 0
        assert (folder / f"{output}.meta.json").exists()
    assert (folder / "disk/a.csv").exists()


# --- Writers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [collect, export, train])
def test_a_second_writer_is_refused_at_once(folder, command):
    maker = folder / "out.partial.for"
    maker.write_text('{"stage": "collect_seeds"}')
    with open(maker) as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        before = contents(folder)
        refused(command(folder, "out"), "out: another process is writing it")
        assert contents(folder) == before


def test_only_the_first_of_several_processes_claims(folder):
    """Those that train together have one output."""
    environment = {"RANK": "1"}
    maker = folder / "out.partial.for"
    maker.write_text('{"stage": "train_sft"}')
    with open(maker) as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        read = ["--rewards", "seed0.csv", "--output", "other"]
        assert (
            processes(LIGHT).run("collect_seeds", read, folder, environment=environment).code == 0
        )
