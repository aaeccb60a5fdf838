"""Every experiment on images, from nothing to its table: the grid is whole, the counts are possible, nothing is done twice."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import CONFIGS, TEST, TRAIN, Work

from robustlab.evaluation import Rate
from robustlab.experiments import EXPERIMENTS
from robustlab.experiments import mislabelled as mislabelled_experiment
from robustlab.experiments.cache import ExperimentCache, NetworkTraining, rate
from robustlab.experiments.claims import WITHOUT_DATA
from robustlab.experiments.finding import Finding
from robustlab.experiments.transfer import rank_correlation
from robustlab.reports.tables import over_seeds, percent

every_experiment = pytest.mark.parametrize("name", CONFIGS)


class Ran:
    """An experiment that was run, with the work that it took."""

    def __init__(self, name: str, data: Path, out: Path) -> None:
        self.config, self.out = CONFIGS[name], out
        with pytest.MonkeyPatch.context() as patch:
            self.work = tiny.count_work(patch)
            self.finding = run(name, data, out)

    @property
    def numbers(self) -> dict[str, Any]:
        return self.finding.numbers

    @property
    def rows(self) -> tuple[tuple[Any, ...], ...]:
        (table,) = self.finding.tables
        return table.rows


def run(name: str, data: Path, out: Path) -> Finding:
    cache = ExperimentCache(out, str(data))
    return import_module(f"robustlab.experiments.{name.replace('-', '_')}").run(cache, CONFIGS[name])


@pytest.fixture(scope="module")
def ran(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each experiment, run once, when first asked for."""
    done: dict[str, Ran] = {}

    def asked(name: str) -> Ran:
        if name not in done:
            done[name] = Ran(name, data, tmp_path_factory.mktemp("ran") / name)
        return done[name]

    return asked


def rates(value: Any) -> Iterator[dict[str, int]]:
    """Every count of something, wherever it stands."""
    if isinstance(value, dict) and value.keys() == {"count", "n"}:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from rates(inner)


def share(found: dict[str, int]) -> float:
    return Rate(**found).value


# All of them


def test_each_experiment_has_a_title_a_small_and_a_full_configuration() -> None:
    assert set(CONFIGS) == set(EXPERIMENTS) - set(WITHOUT_DATA)
    for name in CONFIGS:
        module = import_module(f"robustlab.experiments.{name.replace('-', '_')}")
        assert type(module.FULL) is type(module.Config()) is type(CONFIGS[name]) and module.FULL != module.Config()
        assert module.__doc__ and EXPERIMENTS[name]


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "usefulness"])  # which counts nothing
def test_every_count_is_one_of_as_many_images_as_were_tested(ran: Any, name: str) -> None:
    measurements = [json.loads(path.read_text())["found"] for path in ran(name).out.glob("measurements/*.json")]
    found = list(rates(measurements))
    assert all(0 <= value["count"] <= value["n"] for value in found)
    tested = TEST * 2 // 3 if name == "two-classes" else getattr(CONFIGS[name], "test", TEST)
    others = {"transfer": {20, 140}, "mislabelled": {150, TRAIN}}.get(name, {140})
    assert tested in {value["n"] for value in found} <= {tested, *others}
    reported = list(rates(ran(name).numbers))
    assert all(value in found for value in reported) and len(reported) in (0, len(found))


@every_experiment
def test_numbers_are_json_and_tables_have_a_cell_for_each_column(ran: Any, name: str) -> None:
    finding = ran(name).finding
    assert json.loads(json.dumps(finding.numbers, allow_nan=False)) == finding.numbers
    for table in finding.tables:
        assert table.rows and {len(row) for row in table.rows} == {len(table.columns)}
        assert str(table).startswith(f"## {table.title}\n\n{table.regime}\n")
        assert len(set(table.rows)) == len(table.rows)


@every_experiment
def test_run_again_it_finds_the_same_and_makes_nothing(ran: Any, data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    first = ran(name)
    work = tiny.count_work(monkeypatch)
    models = {path: path.stat().st_mtime_ns for path in first.out.rglob("*.safetensors")}
    assert run(name, data, first.out) == first.finding
    assert work == Work() and models == {path: path.stat().st_mtime_ns for path in first.out.rglob("*.safetensors")}


@every_experiment
def test_elsewhere_it_finds_the_same_numbers(ran: Any, data: Path, tmp_path: Path, name: str) -> None:
    assert run(name, data, tmp_path) == ran(name).finding


@every_experiment
def test_every_network_and_every_set_is_one_that_a_row_needs(ran: Any, name: str) -> None:
    """Networks that were trained, sources among them, and images that were constructed."""
    trained, constructed = {
        "mislabelled": (2 + (1 + 2 + 1 + 2) * 2, 150 + 150 + TRAIN),
        "two-classes": (2 + 4 * 2, 4 * 140),
        "robustified": (2 + 3 * 2, 2 * 140),
        "transfer": (1 + 3 * 2, 140),
        "data-size": (2 * 2 * 2, 0),
        "capacity": (2 * 2 * 2, 0),
        "usefulness": (2, 0),
        "regimes": (2 + 8, 4 * 140),
    }[name]
    done = ran(name)
    assert (done.work.trainings, done.work.images) == (trained, constructed)
    assert len(list(done.out.glob("models/*/model.json"))) == trained
    assert not list(done.out.rglob("last.pt")) and not list(done.out.glob("measurements/*.lock"))


@pytest.mark.parametrize("name", [name for name in CONFIGS if hasattr(CONFIGS[name], "steps")])
def test_sets_made_in_more_steps_teach_networks_of_their_own(
    ran: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Only sources and networks trained on original images, which know of no steps, are found again."""
    done = ran(name)
    shutil.copytree(done.out, tmp_path / "out")
    work = tiny.count_work(monkeypatch)
    monkeypatch.setitem(CONFIGS, name, replace(CONFIGS[name], steps=CONFIGS[name].steps + 1))
    run(name, data, tmp_path / "out")
    original = len(list(done.out.glob("models/*original*/model.json")))
    assert (work.trainings, work.images) == (done.work.trainings - original, done.work.images)


# Mislabelled


def test_mislabelled_has_a_row_for_each_training_of_each_set(ran: Any) -> None:
    done, config = ran("mislabelled"), CONFIGS["mislabelled"]
    grid = [(config.n, 0.05, augment) for augment in config.augments]
    expected = [("D_rand", "fast-l2:1", 150, 0.05, True), ("D_rand", config.source, TRAIN, 0.05, True)]
    expected += [(kind, config.source, *g) for kind in ("D_rand", "D_det") for g in grid]
    measurements = done.numbers["measurements"]
    assert [tuple(cell[key] for key in ("set", "source", "n", "lr", "augment")) for cell in measurements] == expected
    assert len(done.rows) == len(expected)
    for cell, row in zip(measurements, done.rows, strict=True):
        assert len(cell["seeds"]) == config.seeds
        assert row[0] == cell["set"] and row[6] == over_seeds([Rate(**seed["clean"]) for seed in cell["seeds"]])
        for seed in cell["seeds"]:
            assert seed["clean"]["count"] + seed["following"]["count"] <= TEST
            assert seed["own"]["n"] == cell["n"]


def test_mislabelled_takes_the_images_that_there_are(data: Path, tmp_path: Path) -> None:
    config = replace(CONFIGS["mislabelled"], n=400, also=(), augments=(True,), seeds=1)
    measurements = mislabelled_experiment.run(ExperimentCache(tmp_path, str(data)), config).numbers["measurements"]
    assert [cell["n"] for cell in measurements] == [TRAIN, TRAIN]


def test_mislabelled_says_how_its_labels_relate_to_the_old_ones(ran: Any) -> None:
    facts = ran("mislabelled").numbers["facts"]
    assert facts["D_det standard:1"]["label_is_original"] == 0
    assert abs(facts["D_rand standard:1"]["label_is_original"] - 1 / 3) < 4 * math.sqrt(2 / 9 / TRAIN)


def test_without_a_perturbation_d_det_teaches_the_class_after(data: Path, tmp_path: Path) -> None:
    """The colours tell the class; all that changed is the label."""
    cache = ExperimentCache(tmp_path, str(data))
    images = cache.images("train")
    made, _ = mislabelled_experiment.relabelled_set(cache, "D_det", "standard:1", "tiny", images, 0.0, 1)
    training = NetworkTraining("tiny", epochs=20, augment=False)
    found = mislabelled_experiment.train_and_test(cache, made, "shifted", training, cache.images("test"))
    assert share(found["following"]) > 0.8 > 0.2 > share(found["clean"])
    assert share(found["own"]) > 0.8


# Transfer


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ([1, 2, 3], [10, 20, 90], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 1, 2, 3], [1, 2, 2, 3], 5 / 6),
        ([1, 1, 1], [1, 2, 3], None),
        ([0.5], [0.5], None),
    ],
)
def test_rank_correlation_shares_ranks_among_equals(a: list[float], b: list[float], expected: float | None) -> None:
    found = rank_correlation(a, b)
    assert found is None if expected is None else found == pytest.approx(expected)


# Two classes


def test_two_classes_has_a_row_for_each_source_eps_lr_and_augmentation(ran: Any) -> None:
    done, config = ran("two-classes"), CONFIGS["two-classes"]
    measurements = done.numbers["measurements"]
    assert [(cell["source"], cell["eps"]) for cell in measurements] == [(source, eps) for source in config.sources for eps in config.eps]
    assert [row[:3] for row in done.rows] == [(cell["source"], f"{cell['eps']:g}", percent(cell["fooled"])) for cell in measurements]


def test_of_two_classes_every_image_is_classified_as_one_or_the_other(ran: Any) -> None:
    for cell in ran("two-classes").numbers["measurements"]:
        for seed in cell["seeds"]:
            assert seed["clean"]["n"] == TEST * 2 // 3
            assert seed["clean"]["count"] + seed["following"]["count"] == seed["clean"]["n"]


# Robustified


def test_robustified_compares_the_two_sets_with_the_images_they_are_made_from(ran: Any) -> None:
    done, config = ran("robustified"), CONFIGS["robustified"]
    assert [row[0] for row in done.rows] == list(done.numbers["measurements"]) == ["original", "D_R", "D_NR"]
    assert all(len(seeds) == config.seeds for seeds in done.numbers["measurements"].values())
    assert [row[1] for row in done.rows] == ["-", *(f"{done.numbers['facts'][kind]['distance']['mean']:.3f}" for kind in ("D_R", "D_NR"))]


def test_robustified_images_keep_their_labels(ran: Any) -> None:
    assert [known["label_is_original"] for known in ran("robustified").numbers["facts"].values()] == [1, 1]


@pytest.mark.parametrize("name", ["robustified", "data-size"])
def test_no_attack_helps(ran: Any, name: str) -> None:
    measurements = ran(name).numbers["measurements"]
    seeds = [
        seed for part in (measurements.values() if name == "robustified" else (cell["seeds"] for cell in measurements)) for seed in part
    ]
    assert seeds and all(seed["attacked"]["count"] <= seed["clean"]["count"] for seed in seeds)


# Transfer


def test_transfer_has_a_row_for_each_architecture(ran: Any) -> None:
    done, config = ran("transfer"), CONFIGS["transfer"]
    assert [row[0] for row in done.rows] == list(config.archs)
    assert len(done.numbers["accuracy"]) == len(done.numbers["transfer"]) == len(config.archs)
    assert [round(100 * value, 1) for value in done.numbers["transfer"]] == [float(row[3].split()[0]) for row in done.rows]


@pytest.mark.parametrize("fooled, correlation", [((2, 8, 9), 1), ((9, 8, 2), -1), ((8, 2, 9), 0.5)])
def test_transfer_tells_how_the_ranks_of_its_columns_correlate(
    ran: Any, data: Path, monkeypatch: pytest.MonkeyPatch, fooled: tuple[int, ...], correlation: float
) -> None:
    found = [{"clean": rate(Rate(i + 1, 20)), "fooled": rate(Rate(count, 20))} for i, count in enumerate(fooled) for _ in range(2)]
    monkeypatch.setattr(ExperimentCache, "measured", lambda cache, experiment, measurements: found)
    finding = run("transfer", data, ran("transfer").out)
    assert finding.numbers["rank_correlation"] == pytest.approx(correlation)
    assert f"last column: {correlation:.2f} over 3 architectures" in str(finding.tables[0])


# Data size


def test_data_size_has_a_row_for_each_size_and_recipe(ran: Any) -> None:
    done, config = ran("data-size"), CONFIGS["data-size"]
    grid = [(size, recipe) for size in config.sizes for recipe in config.recipes]
    assert [(cell["size"], cell["recipe"]) for cell in done.numbers["measurements"]] == grid
    assert [row[:2] for row in done.rows] == [(f"{size:,}", recipe) for size, recipe in grid]
    assert all(len(cell["seeds"]) == config.seeds for cell in done.numbers["measurements"])


def test_data_size_trains_few_images_as_many_steps_as_epochs_allow(ran: Any) -> None:
    """130 images: a step an epoch, of 2 updates x 128 / 130 one epoch. 260 images: two steps an epoch, at least one epoch."""
    assert ran("data-size").work.steps == 4 * 1 + 4 * 2


def test_data_size_puts_shipped_models_beside(ran: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = ran("data-size")
    shipped = str(next(done.out.glob("models/*/model.json")))
    monkeypatch.setitem(CONFIGS, "data-size", replace(CONFIGS["data-size"], shipped=(shipped,)))
    (table,) = run("data-size", data, done.out).tables
    assert table.rows[:-1] == done.rows and table.rows[-1][:2] == ("all", shipped)


# Regimes


def test_regimes_has_a_row_for_each_source_eps_and_augmentation(ran: Any) -> None:
    done, config = ran("regimes"), CONFIGS["regimes"]
    grid = [(eps, augment) for source in config.sources for eps in config.eps for augment in config.augments]
    assert [(cell["eps"], cell["augment"]) for cell in done.numbers["measurements"]] == grid
    assert [row[1::2][:2] for row in done.rows] == [(f"{eps:g}", "yes" if augment else "no") for eps, augment in grid]
    of_each = len(grid) // len(config.sources)
    names = [done.rows[i * of_each][0] for i in range(len(config.sources))]
    assert [row[0] for row in done.rows] == [name for name in names for _ in range(of_each)]
    assert all(list(heatmap.rows) == names for heatmap in done.finding.maps.values())


def test_regimes_says_which_features_won(ran: Any) -> None:
    done = ran("regimes")
    for cell, row in zip(done.numbers["measurements"], done.rows, strict=True):
        assert row[-1] == ("non-robust" if cell["clean"]["count"] > cell["following"]["count"] else "robust")


def test_regimes_draws_the_shares_of_its_cells(ran: Any) -> None:
    done, config = ran("regimes"), CONFIGS["regimes"]
    assert set(done.finding.maps) == {"regimes-augmented", "regimes-plain"}
    for augment, name in ((True, "regimes-augmented"), (False, "regimes-plain")):
        heatmap = done.finding.maps[name]
        shares = [share(cell["clean"]) for cell in done.numbers["measurements"] if cell["augment"] is augment]
        assert [value for row in heatmap.values for value in row] == shares
        assert len(heatmap.values) == len(heatmap.rows) == len(config.sources)
        assert heatmap.columns == ("0.5", "1") and heatmap.neutral == 1 / 3


def test_capacity_counts_parameters_and_draws_a_line_for_each_training(ran: Any) -> None:
    found = ran("capacity")
    assert [row["parameters"] for row in found.numbers["measurements"]] == [1107, 1107, 1851, 1851]
    (plot,) = found.finding.lines.values()
    assert [line.name for line in plot.lines] == ["standard, clean", "standard, attacked", "fast-l2, clean", "fast-l2, attacked"]
    assert all(list(line.x) == [1107, 1851] for line in plot.lines) and plot.axes.log_x


def test_usefulness_falls_under_attack(ran: Any) -> None:
    for values in ran("usefulness").numbers["measurements"]:
        assert len(values["feature"]) == len(values["clean"]) == len(values["attacked"]) > 0
        assert all(-3 < attacked <= clean for clean, attacked in zip(values["clean"], values["attacked"], strict=True))
    (plot,) = ran("usefulness").finding.lines.values()
    assert len(plot.lines) == 4 and all(list(line.y) == sorted(line.y, reverse=True) for line in plot.lines)
