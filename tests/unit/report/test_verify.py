"""`verify` on a small experiment with real damage: each gives a line, an intact one none."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dpa.artefacts.files import content_hash
from dpa.artefacts.jsonl import write_jsonl
from dpa.artefacts.outputs import save_folder, sidecar_path, write_text
from dpa.artefacts.sidecars import code_hash, write_sidecar
from dpa.records import Prompt, Sample
from dpa.report.run_record import count_problems, run_record
from dpa.report.verify import (
    RUN_RECORD,
    artefact_problems,
    artefacts_of,
    made_by_other_code,
    record_type,
)
from dpa.runtime.run_environment import CLONE
from scripts import verify

RESULTS = Path("results/small")
PROMPTS = RESULTS / "data/prompts/d1.jsonl"
SAMPLES = RESULTS / "dpa/iter1/sampled/0.jsonl"
POLICY = RESULTS / "sft/policy"
TABLE = RESULTS / "tables/table1.csv"


def sample(number: int) -> Sample:
    return Sample(
        prompt_id=f"p{number}", direction_index=0, direction=[1.0, 0.0], sample_index=0,
        seed=number, response="An otter.", finish_reason="stop", prompt_tokens=9, response_tokens=3,
    )  # fmt: skip


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """Prompts, a policy, samples of it, and a table, as a run leaves them."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(PROMPTS, [Prompt(prompt_id=f"p{i}", prompt="?", source="s") for i in range(3)])
    write_sidecar(PROMPTS, ["organisation/prompts"])
    save_folder(POLICY, lambda folder: write_text(folder / "config.json", "{}\n"))
    write_sidecar(POLICY)
    # What Snakemake and a job in hand leave behind.
    write_text(POLICY / ".snakemake_timestamp", "")
    write_text(RESULTS / "logs/train_sft.log", "done\n")
    write_text(RESULTS / "dpa/iter1/sampled/1.jsonl.partial", "{")
    write_jsonl(SAMPLES, map(sample, range(3)))
    write_sidecar(SAMPLES, [POLICY, PROMPTS])
    write_text(TABLE, "method,reward\ndpa,1\n")
    write_sidecar(TABLE, [SAMPLES])
    return tmp_path


def told() -> list[str]:
    return [str(problem) for problem in artefact_problems(RESULTS)]


def test_an_intact_run_has_no_problems(small):
    assert list(artefacts_of(RESULTS)) == [PROMPTS, SAMPLES, POLICY, TABLE]
    assert told() == []


def flip(path: Path) -> None:
    """One bit of one byte, in the middle: the file keeps its length."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def change_sidecar(path: Path, **changes) -> None:
    told = json.loads(sidecar_path(path).read_text())
    write_text(sidecar_path(path), json.dumps(told | changes))


def break_schema(path: Path) -> None:
    """A record of another type; whoever did it corrected hash and count."""
    path.write_bytes(path.read_bytes().replace(b'"finish_reason":"stop"', b'"finish_reason":"?"'))
    change_sidecar(path, sha256=content_hash(path))


def keep_hash_lose_count(path: Path) -> None:
    lose_a_line(path)
    change_sidecar(path, sha256=content_hash(path))


DAMAGES = {
    "flipped byte of a table": (TABLE, flip, ["is not what was written"]),
    "flipped byte of a model": (
        POLICY, lambda p: flip(p / "config.json"),
        ["is not what was written", "was made from another results/small/sft/policy"],
    ),
    "file of a model lost": (
        POLICY, lambda p: (p / "config.json").unlink(),
        ["is not what was written", "was made from another"],
    ),
    "lost line": (
        SAMPLES, lose_a_line,
        ["is not what was written", "has 2 records, its sidecar counts 3", "was made from another"],
    ),
    "lost line, fixed hash": (
        SAMPLES, keep_hash_lose_count,
        ["has 2 records, its sidecar counts 3", "was made from another"],
    ),
    "cut off": (
        SAMPLES, lambda p: p.write_bytes(p.read_bytes()[:-9]),
        ["is not what was written", r"line 3: .*the line is truncated", "was made from another"],
    ),
    "deleted": (
        SAMPLES, Path.unlink, ["is not there, but its sidecar is; rerun with --forcerun"],
    ),
    "deleted model": (POLICY, shutil.rmtree, ["is not there, but its sidecar is"]),
    "deleted sidecar": (
        SAMPLES, lambda p: sidecar_path(p).unlink(), ["has no sidecar 0.jsonl.meta.json"],
    ),
    "deleted sidecar of a model": (
        POLICY, lambda p: sidecar_path(p).unlink(), ["config.json: has no sidecar"],
    ),
    "broken sidecar": (
        TABLE, lambda p: sidecar_path(p).write_text("{"), ["its sidecar cannot be read"],
    ),
    "sidecar of something else": (
        TABLE, lambda p: sidecar_path(p).write_text("[]"), ["its sidecar cannot be read"],
    ),
    "broken schema, fixed hash": (
        SAMPLES, break_schema,
        [r"line 1: Invalid enum value '\?' - at `\$\.finish_reason`", "was made from another"],
    ),
    "stale input": (
        PROMPTS,
        lambda p: (
            write_jsonl(p, [Prompt(prompt_id="p9", prompt="!", source="s")]), write_sidecar(p),
        ),
        [f"sampled/0.jsonl: was made from another {PROMPTS}"],
    ),
    "lost rows": (
        TABLE,
        lambda p: change_sidecar(p, counts={"read": 9, "kept": 5, "dropped": {"empty": 3}}),
        ["counts 9 rows as read, but 5 as kept and {'empty': 3} as dropped"],
    ),
    "unknown records": (
        RESULTS / "stray.jsonl", lambda p: (write_text(p, "{}\n"), write_sidecar(p)),
        ["what its records are is not known"],
    ),
    "unaccounted file": (
        RESULTS / "figures/stray.png", lambda p: write_text(p, ""), ["has no sidecar"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_damage(small, what):
    """Exactly these lines: what is intact is not blamed."""
    path, damage, expected = DAMAGES[what]
    damage(path)
    lines = told()
    assert len(lines) == len(expected), lines
    assert not any("\n" in line for line in lines)
    for fragment in expected:
        pattern = fragment if "\\" in fragment or ".*" in fragment else re.escape(fragment)
        assert any(re.search(pattern, line) for line in lines), (fragment, lines)


def record(path: Path) -> None:
    """The experiment's record, as it is before the damage."""
    text = json.dumps(run_record(RESULTS, "small", "hash", [0]))
    write_text(path, text)
    write_sidecar(path)


def test_the_record_knows_what_is_gone_with_its_sidecar(small):
    record(RESULTS / "provenance.json")
    assert told() == []
    TABLE.unlink()
    sidecar_path(TABLE).unlink()
    [line] = told()
    assert line.startswith(f"{TABLE}: is not there, nor its sidecar, but provenance.json lists it")


def test_the_record_is_of_these_bytes(small):
    record(RESULTS / "provenance.json")
    write_text(TABLE, "method,reward\ndpa,2\n")
    write_sidecar(TABLE, [SAMPLES])
    assert told() == [f"{TABLE}: is another than provenance.json lists; rerun"]


def test_an_input_that_is_gone_is_no_problem(small):
    SAMPLES.unlink()
    sidecar_path(SAMPLES).unlink()
    assert told() == []


def test_each_file_is_hashed_once(small, monkeypatch):
    read: list[str] = []
    original = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: read.append(file.name) or original(file, kind)
    )
    assert told() == []
    assert len(read) == len(set(read)) == 4


def test_the_records_of_every_rules_output_are_known():
    """Whoever adds a JSONL file to a rule says what its lines are."""
    names = {
        name
        for path in (CLONE / "rules").glob("*.smk")
        for name in re.findall(r'"([^"\s]*/[^"\s]*\.jsonl)"', path.read_text())
    }
    assert len(names) > 15
    for name in names:
        name = name.replace("{benchmark}", "rewardbench").replace("{member}", "/member1")
        place = Path(name.replace("{", "").replace("}", ""))
        if place.parts[0] in ("results", "run"):
            assert record_type(place) is not None, name


def test_what_other_code_made_is_named_and_is_no_problem(small, monkeypatch, capsys):
    def sidecar(path: Path, **changed: str) -> None:
        found = json.loads(sidecar_path(path).read_text())
        sidecar_path(path).write_text(json.dumps(found | changed))

    monkeypatch.setattr("sys.argv", ["scripts/collect_seeds.py"])
    code_hash.cache_clear()
    write_sidecar(TABLE, [SAMPLES])
    code_hash.cache_clear()
    # The others were made by no script, or by one that is gone.
    sidecar(POLICY, stage="no_script")
    assert made_by_other_code(RESULTS) == []
    sidecar(TABLE, code="0" * 16)
    assert made_by_other_code(RESULTS) == [TABLE]
    assert told() == []
    verify.main(RESULTS)
    assert f"1 of 4 artefacts were made by other code than the present:\n  {TABLE}\n" in (
        capsys.readouterr().out
    )


def test_what_git_tracks_is_not_to_be_deleted(small):
    for command in (["init", "-q"], ["add", str(TABLE), f"{TABLE}.meta.json"]):
        subprocess.run(["git", *command], check=True, cwd=small)
    flip(TABLE)
    [problem] = told()
    assert "is not what was written" in problem
    assert problem.endswith(
        "git tracks it: restore it with git, or move it out of the run's folder"
    )
    sidecar_path(TABLE).unlink()
    [problem] = told()
    assert "delete" not in problem


def test_sidecars_and_the_record_count_alike(small):
    write_text(RESULTS / RUN_RECORD, json.dumps(run_record(RESULTS, "e", "0", [0])))
    write_sidecar(RESULTS / RUN_RECORD)
    assert list(count_problems(RESULTS)) == []
    change_sidecar(PROMPTS, counts={"read": 5, "kept": 3, "dropped": {"x": 2}})
    assert told() == []
    [problem] = count_problems(RESULTS)
    assert "data/prompts/d1.jsonl" in str(problem)
    assert "'read': 5" in str(problem)


def test_a_sidecar_without_its_artefact_is_not_counted(small):
    before = run_record(RESULTS, "e", "0", [0])
    TABLE.unlink()
    after = run_record(RESULTS, "e", "0", [0])
    assert before["artefacts"].keys() - after["artefacts"].keys() == {"tables/table1.csv"}


@pytest.mark.parametrize(
    "content", [b"\xff", b"[1]", b"[" * 50_000, b'{"inputs": 3, "sha256": "a"}']
)
def test_a_sidecar_of_any_content_is_named(small, content):
    sidecar_path(SAMPLES).write_bytes(content)
    [problem] = told()
    assert "0.jsonl: its sidecar cannot be read" in problem
