"""Laws of sets in shards: the bytes follow from the plan alone, whoever makes which shard when; damage is found and mended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from laws import restless, small_files, untouched
from torch import nn

from robustlab import files
from robustlab.constraints import ThreatModel
from robustlab.construction import Building, Constructed, Inverted, Plan, Relabelled, build_set, next_class, random_target, shards
from robustlab.data import ImageSet
from robustlab.data.constructed import facts, open_constructed
from robustlab.errors import UserError
from robustlab.evaluation import predictions
from robustlab.models.classifier import Classifier
from robustlab.norms import L2
from robustlab.pixels import to_float
from robustlab.seeding import example_keys, fold

CONSTRUCTIONS = {
    "D_rand": Relabelled(random_target, ThreatModel(L2(), 0.5), 3, 0.2),
    "D_det": Relabelled(next_class, ThreatModel(L2(), 0.5), 3, 0.2),
    "D_R": Inverted(3, 0.3),
}
every_construction = pytest.mark.parametrize("construction", CONSTRUCTIONS.values(), ids=CONSTRUCTIONS.keys())
EPS = 0.5


@pytest.fixture
def plan(source, classifier) -> Plan:
    """22 images in four shards, the last of them smaller, each in two batches."""
    return Plan(CONSTRUCTIONS["D_rand"], source, classifier, dtype="float16", shard_size=6, batch_size=4)


def written(folder: Path) -> dict[str, bytes]:
    """All that a plan determines: every file but the record of the machine."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("environment.json", None)
    return found


def hashed(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("shards/*.json"))


class After:
    """Says stop from its ``n``-th question on."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def whole(plan, tmp_path) -> dict[str, bytes]:
    """What the plan makes at one go."""
    assert build_set(tmp_path / "whole", plan)
    return written(tmp_path / "whole")


# The same bytes


@every_construction
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_same_plan_makes_the_same_bytes(construction, dtype, plan, tmp_path):
    plan = replace(plan, construction=construction, dtype=dtype)
    first = build_set(tmp_path / "a", plan)
    torch.rand(3)
    assert build_set(tmp_path / "b", plan) == first
    assert written(tmp_path / "a") == written(tmp_path / "b")


def test_a_finished_set_is_its_shards_their_hashes_and_the_settings(whole, plan, tmp_path):
    shards = [f"shards/{k:05}.{end}" for k in range(4) for end in ("safetensors", "json")]
    assert set(whole) == {"settings.json", "manifest.json", *shards}
    assert (tmp_path / "whole" / "environment.json").is_file()
    manifest = json.loads(whole["manifest.json"])
    assert json.loads(whole["settings.json"]) == manifest["settings"] == plan.described()
    assert (manifest["n"], manifest["shape"], manifest["classes"], manifest["dtype"]) == (22, [3, 8, 8], ["c", "a", "j", "e"], "float16")
    assert [shard["n"] for shard in manifest["shards"]] == [6, 6, 6, 4]
    for shard in manifest["shards"]:
        assert shard["sha256"] == hashlib.sha256(whole[f"shards/{shard['file']}"]).hexdigest()
    assert manifest["sha256"] == hashlib.sha256("".join(f"{s['file']} {s['sha256']}\n" for s in manifest["shards"]).encode()).hexdigest()


@pytest.mark.parametrize("first", [1, 3, 4])
def test_the_order_of_the_shards_leaves_no_trace(first, plan, whole, tmp_path):
    building = Building(tmp_path / "set", plan)
    assert building.run(first=first) and building.check() == []
    building.finish()
    assert written(tmp_path / "set") == whole


def test_who_begins_elsewhere_makes_other_shards_first(plan, tmp_path):
    assert not Building(tmp_path / "set", plan).run(first=2, stop=After(2))
    assert hashed(tmp_path / "set") == ["00002"]


@every_construction
def test_two_at_once_share_the_work_and_make_the_same_set(construction, plan, tmp_path):
    """The second begins, and ends, while the first is in the middle of a shard."""
    plan = replace(plan, construction=construction)
    build_set(tmp_path / "alone", plan)
    one, other = Building(tmp_path / "set", plan), Building(tmp_path / "set", plan)
    seen = []

    def meanwhile() -> bool:
        seen.append(hashed(tmp_path / "set"))
        if len(seen) == 2:
            assert not other.run(), "the first still has a shard in hand"
            assert hashed(tmp_path / "set") == ["00000", "00002", "00003"]
        return False

    assert one.run(first=1, stop=meanwhile)
    assert seen == [[], []], "nothing is left to the first but the shard in its hands"
    assert one.check() == other.check() == []
    assert one.finish() == other.finish()
    assert written(tmp_path / "set") == written(tmp_path / "alone")


def test_a_shard_in_other_hands_is_left_to_them(plan, whole, tmp_path):
    building = Building(tmp_path / "set", plan)
    with files.file_lock(tmp_path / "set" / "shards" / ".00002.lock") as mine:
        assert mine and not building.run()
        assert hashed(tmp_path / "set") == ["00000", "00001", "00003"]
    assert building.run() and building.check() == []
    building.finish()
    assert written(tmp_path / "set") == whole


@pytest.mark.parametrize("questions", range(7))
def test_stopped_anywhere_and_gone_on_with_it_is_the_same_set(questions, plan, whole, tmp_path):
    """A stop keeps the whole shards and nothing of the one that was begun."""
    assert build_set(tmp_path / "set", plan, stop=After(questions)) is None
    assert hashed(tmp_path / "set") == [f"{k:05}" for k in range(questions // 2)]
    assert len(list((tmp_path / "set").glob("shards/*.safetensors"))) == questions // 2
    assert not (tmp_path / "set" / "manifest.json").exists()
    building = Building(tmp_path / "set", plan)
    assert building.done == 6 * (questions // 2)
    assert build_set(tmp_path / "set", plan)
    assert written(tmp_path / "set") == whole


def test_a_finished_set_is_not_made_again(plan, whole, tmp_path):
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("whole/shards/*")}
    assert build_set(tmp_path / "whole", replace(plan, construction=replace(plan.construction)), stop=After(0))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("whole/shards/*")} == times
    assert written(tmp_path / "whole") == whole


# Damage


@pytest.mark.parametrize("ends", [[".safetensors"], [".json"], [".safetensors", ".json"]], ids=" ".join)
def test_a_deleted_shard_is_made_again(ends, plan, whole, tmp_path):
    for end in ends:
        (tmp_path / "whole" / "shards" / f"00001{end}").unlink()
    building = Building(tmp_path / "whole", plan)
    assert building.done == 16
    assert building.run() and building.check() == []
    building.finish()
    assert written(tmp_path / "whole") == whole


DAMAGES = {
    "one bit": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "cut short": lambda content: content[:-1],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_shard_is_found_by_its_hash_and_made_again(damage, plan, whole, tmp_path):
    shard = tmp_path / "whole" / "shards" / "00002.safetensors"
    shard.write_bytes(damage(shard.read_bytes()))
    building = Building(tmp_path / "whole", plan)
    assert building.run(), "by its name alone it is there"
    assert building.check() == [2] and not shard.exists() and hashed(tmp_path / "whole") == ["00000", "00001", "00003"]
    assert building.run() and building.check() == []
    building.finish()
    assert written(tmp_path / "whole") == whole


def test_a_shard_of_another_set_is_found_too_and_build_mends_by_itself(plan, whole, tmp_path):
    build_set(tmp_path / "other", replace(plan, seed=1))
    for name in ("00000.safetensors", "00003.safetensors"):
        (tmp_path / "whole" / "shards" / name).write_bytes((tmp_path / "other" / "shards" / name).read_bytes())
    assert Building(tmp_path / "whole", plan).check() == [0, 3]
    (tmp_path / "whole" / "shards" / "00001.safetensors").write_bytes(b"")
    assert build_set(tmp_path / "whole", plan)
    assert written(tmp_path / "whole") == whole


HASH_FILES = {"empty": "", "no hash": "{}", "no object": "[]", "another hash": '{"sha256": "0", "n": 6}'}


@pytest.mark.parametrize("content", HASH_FILES.values(), ids=HASH_FILES.keys())
def test_a_damaged_hash_is_a_damaged_shard(content, plan, whole, tmp_path):
    (tmp_path / "whole" / "shards" / "00001.json").write_text(content)
    assert Building(tmp_path / "whole", plan).check() == [1]
    assert build_set(tmp_path / "whole", plan)
    assert written(tmp_path / "whole") == whole


def test_what_a_killed_process_left_half_written_is_taken_away(plan, whole, tmp_path):
    (tmp_path / "whole" / "shards" / ".00000.safetensors.99999.tmp").write_bytes(b"half")
    build_set(tmp_path / "whole", plan)
    assert written(tmp_path / "whole") == whole


def test_a_file_in_the_place_of_the_folder_is_refused_in_a_sentence(plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in .*file"):
        Building(tmp_path / "file", plan)


# Settings


@pytest.mark.parametrize(
    "other, difference",
    [
        ({"seed": 1}, "(seed: 0 there, 1 here)"),
        ({"dtype": "uint8"}, "(dtype: 'float16' there, 'uint8' here)"),
        ({"shard_size": 7}, "(shard_size: 6 there, 7 here)"),
        ({"batch_size": 3}, "(batch_size: 4 there, 3 here)"),
        ({"compute_dtype": torch.bfloat16}, "(compute_dtype: 'float32' there, 'bfloat16' here)"),
        ({"construction": CONSTRUCTIONS["D_det"]}, "(construction.targets: 'random_target' there, 'next_class' here)"),
        ({"construction": replace(CONSTRUCTIONS["D_rand"], steps=9)}, "(construction.steps: 3 there, 9 here)"),
        ({"construction": CONSTRUCTIONS["D_R"]}, "construction.kind: 'relabelled' there, 'inverted' here"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_a_folder_refuses_other_settings_and_names_the_difference(other, difference, plan, whole, tmp_path):
    with pytest.raises(UserError, match="holds a set with other settings .*`out`") as caught:
        Building(tmp_path / "whole", replace(plan, **other))
    assert difference in str(caught.value)
    assert written(tmp_path / "whole") == whole


def test_other_images_labels_or_weights_are_other_settings(plan, source, whole, tmp_path):
    changed = source.pixels.clone()
    changed[21, 2, 7, 7] ^= 1
    for images in (replace(source, pixels=changed), replace(source, labels=source.labels.roll(1))):
        with pytest.raises(UserError, match=r"\(source.fingerprint: [^;]*\)"):
            Building(tmp_path / "whole", replace(plan, source=images))
    assert Building(tmp_path / "whole", replace(plan, source=replace(source, name="other"))).done == len(source)  # they may have moved
    shifted = Classifier(plan.model.body, plan.model.head, mean=[0.4, 0.5, 0.7], std=[0.2, 0.25, 0.3], classes="abcdefghij").eval()
    with pytest.raises(UserError, match=r"\(model.mean: [^;]*\)"):
        Building(tmp_path / "whole", replace(plan, model=shifted))
    with torch.no_grad():
        plan.model.head.bias[9] += 1
    with pytest.raises(UserError, match=r"\(model.sha256: [^;]*\)"):
        Building(tmp_path / "whole", replace(plan))
    assert written(tmp_path / "whole") == whole


def test_a_description_is_json_and_the_same_every_time(plan):
    told = plan.described()
    assert json.loads(json.dumps(told)) == told == replace(plan).described()


def test_a_plan_reads_the_weights_once(plan, tmp_path, monkeypatch):
    """On a GPU each reading makes it wait."""
    asked = []
    read = shards.weights_of
    monkeypatch.setattr(shards, "weights_of", lambda model: asked.append(model) or read(model))
    assert build_set(tmp_path / "set", plan) and plan.described() == plan.described()
    assert asked == [plan.model]


def test_a_model_elsewhere_is_copied_to_where_the_set_is_made(plan):
    """A device without memory stands for a GPU: what is there has shapes only."""
    maker = shards._ShardMaker(replace(plan, construction=AsTheyAre(), device=torch.device("meta")), lambda images: None)
    assert maker.model.mean.device.type == "meta" and plan.model.mean.device.type == "cpu"
    assert shards._ShardMaker(plan, lambda images: None).model is plan.model


def test_sets_made_under_older_names_are_gone_on_with(plan, whole, tmp_path):
    settings = json.loads(whole["settings.json"])
    settings["search"] = settings.pop("compute_dtype")
    settings["construction"]["targets"] = "drawn"
    (tmp_path / "whole" / "settings.json").write_text(json.dumps(settings))
    assert Building(tmp_path / "whole", plan).done == 22


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"dtype": "float61"}, "unknown dtype 'float61'. Did you mean 'float16'?"),
        ({"shard_size": 0}, "shard_size >= 1 and batch_size >= 1, got 0 and 4"),
        ({"batch_size": 0}, "shard_size >= 1 and batch_size >= 1, got 6 and 0"),
        ({"source": ImageSet(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64), ("a",), "none")}, "none: there are no images"),
        (
            {"source": ImageSet(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), ("a",), "grey")},
            "wants 3 channels, but .* grey have 1",
        ),
        (
            {"source": ImageSet(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64), ("z",), "zoo")},
            "does not know all classes of zoo",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_a_plan_that_makes_no_sense_is_refused(wrong, sentence, plan):
    with pytest.raises(UserError, match=sentence):
        replace(plan, **wrong)


# The folder and the disk


def test_a_folder_of_other_files_is_left_alone(plan, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not an empty folder: .*`out`"):
        Building(tmp_path, plan)
    assert written(tmp_path) == {"thesis.tex": b"years of work"}


def test_an_empty_folder_is_taken(plan, whole, tmp_path):
    (tmp_path / "set").mkdir()
    assert build_set(tmp_path / "set", plan) and written(tmp_path / "set") == whole


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "empty folder"])
def test_a_set_that_the_disk_has_no_room_for_is_not_begun(there, plan, tmp_path, monkeypatch):
    if there:
        (tmp_path / "set").mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 22 * plan.bytes_per_image - 1})())
    with pytest.raises(UserError, match=r"set needs 0.00 GB more, but its disk has only 0.00 GB left$"):
        Building(tmp_path / "set", plan)
    assert (tmp_path / "set").exists() == there and written(tmp_path) == {}


def test_room_is_wanted_for_the_missing_shards_only(plan, whole, tmp_path, monkeypatch):
    (tmp_path / "whole" / "shards" / "00003.json").unlink()
    for free, enough in ((4 * plan.bytes_per_image, True), (4 * plan.bytes_per_image - 1, False)):
        monkeypatch.setattr("shutil.disk_usage", lambda place, free=free: type("Usage", (), {"free": free})())
        if enough:
            assert Building(tmp_path / "whole", plan).done == 18
        else:
            with pytest.raises(UserError, match="GB more, but its disk has only"):
                Building(tmp_path / "whole", plan)


def test_a_shard_takes_no_more_than_the_room_that_is_asked_for(plan, whole):
    for name, content in whole.items():
        if name.endswith(".safetensors"):
            assert len(content) <= 6 * plan.bytes_per_image + 1024


def test_a_disk_that_fills_up_is_told_and_what_was_made_stays(plan, whole, tmp_path):
    with small_files(3000), pytest.raises(UserError, match="cannot write .*00000.safetensors: File too large"):
        build_set(tmp_path / "set", plan)
    assert set(written(tmp_path / "set")) <= {"settings.json", "shards/.00000.lock", ".opening"}
    assert build_set(tmp_path / "set", plan) and written(tmp_path / "set") == whole


# What is stored


@every_construction
@pytest.mark.parametrize("dtype, rounding", [("float32", 0.0), ("float16", 2.0**-12), ("uint8", 0.5 / 255 + 1e-7)])
def test_what_is_stored_is_what_was_made_but_for_rounding(construction, dtype, rounding, plan, tmp_path):
    plan = replace(plan, construction=construction, dtype=dtype)
    manifest = build_set(tmp_path / "set", plan)
    known, index = facts(tmp_path / "set"), torch.arange(22)
    stored = to_float(open_constructed(tmp_path / "set").fetch(index))
    made = torch.cat(
        [
            construction(
                plan.source, part, fold(example_keys(0, part), "construct"), plan.model, construction.fast_model(plan.model, None)
            ).x
            for shard in index.split(6)
            for part in shard.split(4)
        ]
    )
    assert (stored - made).abs().max() <= rounding and 0 <= stored.min() and stored.max() <= 1
    assert torch.equal(known["added_by_storing"], L2().measure(stored.double() - made.double()).float())
    assert torch.equal(known["predicted_before_storing"], predictions(plan.model, made))
    assert torch.equal(known["predicted"], predictions(plan.model, stored))
    assert torch.equal(known["index"], index) and torch.equal(known["label"], plan.source.labels)
    outputs = torch.tensor(["abcdefghij".index(name) for name in plan.source.classes])[known["y"]]
    for fact, predicted in (("taken_for_label_before_storing", made), ("taken_for_label", stored)):
        share = float((predictions(plan.model, predicted) == outputs).double().mean())
        assert manifest["facts"][fact] == share
    assert manifest["facts"]["added_by_storing"]["largest"] == float(known["added_by_storing"].max())


class AsTheyAre:
    """The simplest construction: the source images with their labels."""

    def fast_model(self, model, dtype):
        return nn.Identity()

    def __call__(self, source, index, keys, model, fast_model=None):
        return Constructed(source.fetch(index), source.labels[index])

    def described(self):
        return {"kind": "as they are"}


def test_what_storing_changes_is_told(tmp_path):
    """One pixel each, and a boundary between two grey levels: rounding takes the second image across it."""
    levels = torch.tensor([127.1, 127.3, 126.9, 127.6], dtype=torch.float64)
    source = ImageSet((levels / 255).float().view(4, 1, 1, 1), torch.ones(4, dtype=torch.int64), ("dark", "bright"), "grey")
    model = Classifier(nn.Flatten(), nn.Linear(1, 2, bias=False), mean=[127.2 / 255], std=[1.0], classes=source.classes)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    manifest, known = build_set(tmp_path / "set", Plan(AsTheyAre(), source, model, dtype="uint8")), facts(tmp_path / "set")
    assert known["predicted_before_storing"].tolist() == [0, 1, 0, 1] and known["predicted"].tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(known["added_by_storing"].double() * 255, (levels - levels.round()).abs(), rtol=0, atol=1e-4)
    shares = {"taken_for_label_before_storing": 0.5, "taken_for_label": 0.25, "taken_for_original_label": 0.25, "label_is_original": 1.0}
    assert {name: manifest["facts"][name] for name in shares} == shares
    assert manifest["facts"]["added_by_storing"] == pytest.approx({"mean": 0.225 / 255, "largest": 0.4 / 255}, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_stored_images_lie_in_the_ball_but_for_what_storing_added(dtype, plan, tmp_path):
    plan = replace(plan, dtype=dtype)
    build_set(tmp_path / "set", plan)
    known, stored = facts(tmp_path / "set"), to_float(open_constructed(tmp_path / "set").fetch(torch.arange(22)))
    distance = L2().measure(stored.double() - to_float(plan.source.pixels).double())
    assert (distance <= EPS + known["added_by_storing"].double() + 1e-6).all()
    assert (known["moved"] <= EPS).all()
    assert dtype != "float32" or (known["added_by_storing"] == 0).all()


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_labels_are_those_of_the_kind(name, plan, tmp_path):
    facts_of_set = build_set(tmp_path / "set", replace(plan, construction=CONSTRUCTIONS[name]))["facts"]
    y, old = facts(tmp_path / "set")["y"], plan.source.labels
    keys = fold(example_keys(0, torch.arange(22)), "construct")
    expected = {"D_rand": random_target(old, keys, 4), "D_det": (old + 1) % 4, "D_R": old}[name]
    assert torch.equal(y, expected)
    assert facts_of_set["label_is_original"] == float((y == old).double().mean())


# What is told and what is left


@every_construction
def test_progress_adds_up_to_the_images_whoever_made_them(construction, plan, tmp_path):
    plan, told = replace(plan, construction=construction), []
    building, late = Building(tmp_path / "set", plan), Building(tmp_path / "set", plan)
    assert building.run(on_images=told.append)
    assert len(told) > 22 / 4 and min(told) >= 0 and sum(told) == pytest.approx(22)
    skipped = []
    assert late.run(on_images=skipped.append) and skipped == [6, 6, 6, 4]
    checked = []
    assert building.check(checked.append) == [] and checked == [6, 6, 6, 4]


@every_construction
def test_the_model_the_images_and_the_random_state_are_as_before(construction, plan, source, tmp_path):
    plan = replace(plan, construction=construction)
    with untouched(restless(plan.model), source.pixels, source.labels):
        build_set(tmp_path / "stopped", plan, stop=After(3))
        build_set(tmp_path / "set", plan)
    assert not any(module._forward_hooks for module in plan.model.modules())


def test_the_mode_of_the_model_does_not_matter(plan, whole, tmp_path):
    restless(plan.model)
    assert build_set(tmp_path / "set", plan) and written(tmp_path / "set") == whole


@every_construction
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_the_model_is_as_before_and_the_work_goes_on(construction, error, plan, source, tmp_path):
    plan, asked = replace(plan, construction=construction), After(3)

    def fail(module, inputs):
        if asked():
            raise error("in the middle")

    build_set(tmp_path / "whole", plan)
    hook = restless(plan.model).body.register_forward_pre_hook(fail)
    with untouched(plan.model, source.pixels, source.labels), pytest.raises(error, match="in the middle"):
        build_set(tmp_path / "set", plan)
    hook.remove()
    assert build_set(tmp_path / "set", plan) and written(tmp_path / "set") == written(tmp_path / "whole")


@pytest.mark.parametrize("name", ["D_rand", "D_det"])
def test_an_image_of_a_set_is_the_same_whether_it_is_made_of_all_images_or_of_some(tmp_path, source, classifier, name):
    some = torch.tensor([20, 3, 11, 4])
    made = []
    for which, images in (("all", source), ("some", source.subset(some))):
        plan = Plan(CONSTRUCTIONS[name], images, classifier, dtype="float32", batch_size=1)  # rounding may depend on the batch
        build_set(tmp_path / which, plan)
        made.append((open_constructed(tmp_path / which), facts(tmp_path / which)))
    (every, known), (few, told) = made
    assert told["index"].tolist() == some.tolist() and torch.equal(told["label"], known["label"][some])
    assert torch.equal(few.fetch(torch.arange(4)), every.fetch(some))


def test_a_set_of_some_images_says_that_places_are_those_of_the_whole_split(source, classifier):
    whole = Plan(CONSTRUCTIONS["D_R"], source, classifier).described()
    assert "places" not in whole  # so that sets of whole splits stay the same
    assert Plan(CONSTRUCTIONS["D_R"], source.subset(torch.arange(22)), classifier).described() == whole
    assert Plan(CONSTRUCTIONS["D_R"], source.subset(torch.tensor([1, 0])), classifier).described()["places"] == "in the whole split"


def test_the_start_of_an_inversion_is_named_by_its_place(tmp_path, source, classifier):
    some = torch.tensor([20, 3, 11, 4])
    build_set(tmp_path / "set", Plan(Inverted(0, 0.0), source.subset(some), classifier, dtype="float32"))
    found = facts(tmp_path / "set")
    assert set(found["start"].tolist()) <= set(some.tolist()) and (found["start"] != found["index"]).all()
    torch.testing.assert_close(open_constructed(tmp_path / "set").fetch(torch.arange(4)), to_float(source.fetch(found["start"])))
