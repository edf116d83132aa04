"""Soups of tiny experts: exact at the ends, an average between, refused when they do not mix."""

import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpa.directions import expert_directions, from_degrees
from dpa.errors import InputError
from dpa.methods import reward_soup as soup
from dpa.methods.reward_soup import interpolate, soup_weights

ARC = {"distribution": "arc", "from_degrees": -45.0, "to_degrees": 0.0}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def save(model, tokenizer, folder, **options):
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def tensors(folder):
    """All tensors of a checkpoint, of whichever files."""
    return {k: v for f in sorted(folder.glob("*.safetensors")) for k, v in load_file(f).items()}


def moved(policy, seed):
    """The policy with all weights moved a little."""
    model = load(policy)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * noise.to(parameter.dtype))
    return model


@pytest.fixture(scope="module")
def experts(tiny_policy, tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    return [save(moved(tiny_policy, i), tiny_tokenizer, folder / str(i)) for i in range(3)]


@pytest.fixture(scope="module")
def sharded(experts, tiny_tokenizer, tmp_path_factory):
    """The first two experts again, in shards of different sizes."""
    folder = tmp_path_factory.mktemp("sharded")
    made = [
        save(load(expert), tiny_tokenizer, folder / expert.name, max_shard_size=size)
        for expert, size in zip(experts, ["150KB", "100KB"], strict=False)
    ]
    counts = [len(list(expert.glob("*.safetensors"))) for expert in made]
    assert counts[0] > 1
    assert counts[1] > counts[0]
    return made


def test_weights_are_shares_of_the_absolute_direction():
    alone = [[1.0, 0.0], [0.0, -1.0]]
    assert soup_weights([0.6, -0.2], alone) == pytest.approx([0.75, 0.25])
    assert soup_weights([1.0, 0.0], alone) == [1.0, 0.0]
    assert soup_weights([0.0, -1.0], alone) == [0.0, 1.0]
    # More verbosity is nothing that the terse expert has a part in.
    assert soup_weights([0.6, 0.8], alone) == [1.0, 0.0]
    for nothing in ([0.0, 0.0], [float("nan"), -1.0], [-1.0, 0.0]):
        with pytest.raises(InputError, match="weighs no expert"):
            soup_weights(nothing, alone)
    with pytest.raises(InputError, match="2 experts for 3 objectives"):
        soup_weights([1.0, 0.0, 0.0], alone)


def test_shares_of_experts_at_the_ends_of_the_arc():
    ends = expert_directions(ARC, "ends")
    assert ends == [from_degrees(0), from_degrees(-45)]
    assert soup_weights(ends[0], ends) == [1.0, 0.0]
    assert soup_weights(ends[1], ends) == pytest.approx([0.0, 1.0])
    # Between them both have the same part.
    assert soup_weights(from_degrees(-22.5), ends) == pytest.approx([0.5, 0.5], abs=1e-5)
    assert soup_weights(from_degrees(-90), ends) == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_weight_of_one_gives_that_expert_bit_for_bit(experts, tmp_path, index):
    weights = [0.0, 0.0, 0.0]
    weights[index] = 1.0
    interpolate(experts, weights, tmp_path / "soup")
    assert (tmp_path / "soup/model.safetensors").read_bytes() == (
        experts[index] / "model.safetensors"
    ).read_bytes()


def test_a_soup_has_the_logits_of_the_averaged_parameters(experts, tmp_path):
    shares = [0.5, 0.2, 0.3]
    interpolate(experts, shares, tmp_path / "soup")
    models = [load(expert) for expert in experts]
    with torch.no_grad():
        averaged = load(experts[0])
        others = zip(*(model.parameters() for model in models), strict=True)
        for parameter, parts in zip(averaged.parameters(), others, strict=True):
            parameter.copy_(sum(w * part for w, part in zip(shares, parts, strict=True)))
        ids = torch.arange(5, 45).view(2, 20)
        logits, expected = load(tmp_path / "soup")(ids).logits, averaged(ids).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits, models[0](ids).logits, atol=0.1)


def test_everything_but_the_weights_is_the_first_experts(experts, tmp_path):
    first = tmp_path / "first"
    shutil.copytree(experts[0], first)
    (first / "pytorch_model.bin").write_bytes(b"an old format")
    interpolate([first, experts[1]], [0.5, 0.5], tmp_path / "soup")
    names = {path.name for path in experts[0].iterdir()}
    assert {path.name for path in (tmp_path / "soup").iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (tmp_path / "soup" / name).read_bytes() == (first / name).read_bytes()
    template = AutoTokenizer.from_pretrained(tmp_path / "soup").chat_template
    assert template == AutoTokenizer.from_pretrained(first).chat_template
    assert not (tmp_path / "soup.partial").exists()


def test_sharding_does_not_matter(experts, sharded, tmp_path):
    """Single files, shards of two sizes, and the two mixed."""
    shares = [0.3, 0.7]
    interpolate(experts[:2], shares, tmp_path / "single")
    expected = tensors(tmp_path / "single")
    for name, mixed in {
        "both": sharded,
        "first": [sharded[0], experts[1]],
        "second": [experts[0], sharded[1]],
    }.items():
        interpolate(mixed, shares, tmp_path / name)
        found = tensors(tmp_path / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files == {path.name for path in mixed[0].iterdir()}
        load(tmp_path / name)


def test_no_more_than_one_output_shard_is_held(sharded, tmp_path, monkeypatch):
    """When a shard is written, the tensors of all earlier ones are gone."""
    written = []

    def spy(averages, path, **options):
        assert not any(tensor() for tensor in written)
        written.extend(weakref.ref(tensor) for tensor in averages.values())
        save_file(averages, path, **options)

    monkeypatch.setattr(soup, "save_file", spy)
    interpolate(sharded, [0.5, 0.5], tmp_path / "soup")
    assert len(written) == len(tensors(sharded[0]))


def test_bfloat16_is_averaged_in_float32_and_stays_bfloat16(experts, tiny_tokenizer, tmp_path):
    halves = [
        save(load(expert).bfloat16(), tiny_tokenizer, tmp_path / expert.name) for expert in experts
    ]
    shares = [0.2, 0.5, 0.3]
    interpolate(halves, shares, tmp_path / "soup")
    parts = [tensors(half) for half in halves]
    for name, found in tensors(tmp_path / "soup").items():
        exact = sum(w * part[name].double() for w, part in zip(shares, parts, strict=True))
        assert found.dtype == torch.bfloat16
        # One rounding to bfloat16's eight significant bits, and not one per expert.
        torch.testing.assert_close(found.double(), exact, rtol=1.001 * 2**-8, atol=1e-7)
    interpolate(halves, [0.0, 1.0, 0.0], tmp_path / "one")
    assert all(torch.equal(parts[1][k], v) for k, v in tensors(tmp_path / "one").items())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "1 weights for 2 experts"),
        ([0.5, 0.6], "non-negative with sum 1"),
        ([1.5, -0.5], "non-negative with sum 1"),
        ([float("nan"), 1.0], "non-negative with sum 1"),
    ],
)
def test_weights_that_are_no_shares_are_refused(experts, tmp_path, weights, message):
    with pytest.raises(InputError, match=message):
        interpolate(experts[:2], weights, tmp_path / "soup")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def refused(experts, tmp_path):
    """Asserts that a soup with an expert that is changed by `change` is refused."""

    def check(change, message):
        other = tmp_path / "other"
        shutil.copytree(experts[1], other)
        change(other)
        with pytest.raises(InputError, match=message):
            # Even an expert that gets no weight must fit.
            interpolate([experts[0], other], [1.0, 0.0], tmp_path / "soup")
        assert not (tmp_path / "soup").exists()

    return check


def change_tensors(change):
    def apply(folder):
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors")

    return apply


def change_json(name, change):
    def apply(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def test_pickled_weights_are_refused(refused):
    def pickle(folder):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    refused(pickle, "other: has neither model.safetensors nor .*; save the checkpoint")


def test_a_broken_file_is_refused(refused):
    refused(lambda f: (f / "model.safetensors").write_bytes(b"1234"), "other/model.safetensors: ")


def test_a_missing_tensor_is_refused(refused):
    change = change_tensors(lambda found: found.pop("model.norm.weight"))
    refused(change, r"other: has not the tensors of .*0 \(model.norm.weight\); fine-tune")


def test_another_shape_is_refused(refused):
    change = change_tensors(lambda found: found.update({"model.norm.weight": torch.ones(63)}))
    refused(change, r"model.norm.weight is F32 \[63\], in .*0 it is F32 \[64\]")


def test_another_dtype_is_refused(refused):
    change = change_tensors(
        lambda found: found.update({"model.norm.weight": torch.ones(64).half()})
    )
    refused(change, "model.norm.weight is F16")


def test_numbers_that_cannot_be_averaged_are_refused(refused):
    ints = torch.ones(64, dtype=torch.int8)
    change = change_tensors(lambda found: found.update({"model.norm.weight": ints}))
    refused(change, "model.norm.weight is I8, which cannot be averaged")


def test_another_architecture_is_refused(refused):
    change = change_json("config.json", lambda config: config.update(vocab_size=7))
    refused(change, "other/config.json: vocab_size differ from")


def test_other_tokens_are_refused(refused):
    change = change_json("tokenizer.json", lambda tokens: tokens["added_tokens"].pop())
    refused(change, "other/tokenizer.json: tokens differ")


def test_an_index_without_its_file_is_refused(sharded, tmp_path):
    shutil.copytree(sharded[0], tmp_path / "broken")
    next((tmp_path / "broken").glob("*.safetensors")).unlink()
    with pytest.raises(InputError, match=r"broken/model-.*safetensors: "):
        interpolate([tmp_path / "broken"], [1.0], tmp_path / "soup")


def test_incidental_differences_are_fine(experts, tmp_path):
    shutil.copytree(experts[1], tmp_path / "other")
    change_json("config.json", lambda c: c.update(transformers_version="4.0.0"))(tmp_path / "other")
    interpolate([experts[0], tmp_path / "other"], [0.5, 0.5], tmp_path / "soup")
