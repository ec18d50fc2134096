"""The benchmark `reasons.py`: its measures against other formulas, and its questions to made-up runs."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from ltx.config import UserError
from ltx.main.baselines.options import BaselineOptions
from ltx.main.runs.mask_files import MaskUnit, unit_path, write_unit
from ltx.main.runs.run_folder import open_run
from ltx.tests.benchmarks import reasons
from ltx.tests.benchmarks.reasons_measures import (
    GREY,
    READERS,
    WHITE,
    cross_validated,
    enough,
    overlap,
    shapes,
    spearman,
    top,
    with_interval,
)

SIZE, N = (16, 16), 36
CLASSES = np.arange(N) % 3


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((N, *SIZE), dtype=np.float32)


def painted(seed: int = 0) -> np.ndarray:
    """Maps that write their class into the picture, as a block in its own place, and else are noise."""
    maps = 0.5 * noise(seed)
    for i, c in enumerate(CLASSES):
        maps[i, 5 * c : 5 * c + 4, 3:9] += 1
    return maps


@pytest.fixture
def make_run(tmp_path):
    """`make_run(name, maps by variant, seed=1, **of run.json)`: a run folder of two mask files."""

    def make(name, maps, seed=1, classes=CLASSES, images=None, explainee="a", **record):
        folder, images = tmp_path / name, images or [f"{i}.jpg" for i in range(N)]
        record = {"method": "baselines", "explainee": {"sha256": explainee}, "input_size": SIZE} | record
        open_run(folder, BaselineOptions(method="x", seed=seed), {"run": name}, record)
        lines = ["index,image,label", *(f"{i},{image},-1" for i, image in enumerate(images))]
        (folder / "manifest.csv").write_text("\n".join(lines))
        for part in (range(20), range(20, N)):
            rows = slice(part.start, part.stop)
            stored = {variant: values[rows] for variant, values in maps.items()}
            write_unit(unit_path(folder, part), MaskUnit(np.array(part), classes[rows], {}, stored))
        return folder

    return make


@pytest.fixture
def ask(capsys):
    """`ask(question, *flags)`: the closing line's results and what was printed."""

    def run(*flags):
        reasons.main([str(flag) for flag in flags])
        out = capsys.readouterr().out
        return json.loads(out.splitlines()[-1])["results"], out

    return run


@pytest.fixture
def refused(capsys):
    """`refused(question, *flags)`: the one line of a user's mistake."""

    def run(*flags):
        with pytest.raises(SystemExit) as stop:
            reasons.main([str(flag) for flag in flags])
        assert stop.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run


# Measures.


def test_top_takes_the_same_number_everywhere_and_the_first_of_equal_ones():
    maps = noise(1)
    chosen = top(maps, 0.1)
    assert (chosen.sum(axis=(1, 2)) == 26).all()  # of 256
    for one, its in zip(maps, chosen, strict=True):
        assert one[its].min() > one[~its].max()
    assert top(np.zeros((1, 2, 4), np.float32), 0.5)[0].tolist() == [[True] * 4, [False] * 4]


def test_shapes_hold_nothing_but_the_shape():
    """However bright the map, pixels are white or grey."""
    maps = noise(1)
    found = shapes(maps, 0.2, 16)
    assert set(np.unique(found)) == {np.float32(GREY), np.float32(WHITE)}
    np.testing.assert_array_equal(found, shapes(0.01 * maps**2, 0.2, 16))
    np.testing.assert_allclose(shapes(maps, 0.2, 4).mean(), GREY + (WHITE - GREY) * 51 / 256, rtol=1e-5)


@pytest.mark.parametrize("reader", READERS)
def test_readers_read_what_is_there_and_nothing_else(reader):
    read = {
        name: cross_validated(READERS[reader], shapes(maps, 0.1, 8), CLASSES, 3, 0).mean()
        for name, maps in {"painted": painted(), "noise": noise(5)}.items()
    }
    assert read["painted"] > 0.9 and read["noise"] < 0.65


def test_cross_validation_tests_each_image_once_on_a_reader_that_has_not_seen_it():
    pictures, tested = np.arange(N, dtype=np.float32).reshape(N, 1, 1), []

    def reader(train, labels, test, seed):
        assert not set(train.ravel()) & set(test.ravel()) and set(labels) == {0, 1, 2}
        tested.extend(test.ravel())
        return np.zeros(len(test))

    right = cross_validated(reader, pictures, CLASSES, 4, 0)
    assert sorted(tested) == list(range(N)) and right.tolist() == (CLASSES == 0).astype(float).tolist()


def test_classes_with_few_images_do_not_count():
    classes = np.array([1, 1, 1, 2, 2, 2, 7])
    assert enough(classes, 3).tolist() == [True] * 6 + [False]
    with pytest.raises(UserError, match="cannot be measured here: of the 814 classes of 814 images, 0 have"):
        enough(np.arange(814), 5)


def test_spearman_is_scipys():
    one, other = noise(1), np.round(noise(1) + noise(2), 1)  # with ties
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(spearman(one, other), expected, atol=1e-6)
    assert spearman(one, np.ones_like(one)).tolist() == [0] * N


def test_overlap_by_hand():
    one, other = np.zeros((2, 1, 1, 10), np.float32)
    one[0, 0, [0, 1]], other[0, 0, [1, 2]] = 1, 1
    assert overlap(one, other, 0.2).tolist() == [1 / 3] and overlap(one, one, 0.2).tolist() == [1]


def test_intervals():
    mean, low, high = with_interval(np.array([0.0, 1.0] * 50))
    assert mean == 0.5 and low == pytest.approx(0.4, abs=0.02) and high == pytest.approx(0.6, abs=0.02)
    assert with_interval(np.array([0.25])) == (0.25, None, None)


# Questions.


def test_shape(make_run, ask):
    one = make_run("one", {"last": painted(), "random": noise(1)})
    two = make_run("two", {"random": noise(2)})
    flags = ["--share", 0.1, "--grid", 8, "--folds", 3]
    results, out = ask("shape", one, two, *flags, "--methods", "last,random")
    assert list(results) == ["chance", "last", "one/random", "two/random"]
    assert results["chance"]["accuracy"] == pytest.approx(100 / 3)
    assert results["last"]["logistic_10"] > 90 and results["last"]["cnn_10"] > 90
    assert results["one/random"]["logistic_10"] < 65 < results["last"]["logistic_10_low"]
    assert "36 of 36 images, 3 classes" in out and "| last | " in out
    again, _ = ask("shape", one, *flags, "--methods", "last")
    assert again["last"] == results["last"]


def test_seeds(make_run, ask):
    maps, other = noise(1), noise(2)
    runs = [
        make_run(f"run{seed}", {"same": maps, "other": noise(10 + seed), f"own{seed}": other}, seed=seed)
        for seed in range(3)
    ]
    results, _ = ask("seeds", *runs)
    assert sorted(results) == ["other", "same"]
    assert results["same"]["spearman"] == pytest.approx(1) and results["same"]["iou"] == pytest.approx(1)
    assert abs(results["other"]["spearman"]) < 0.05 and results["other"]["iou"] < 0.12
    assert abs(results["same"]["spearman_other_image"]) < 0.05
    assert results["other"]["iou_low"] < results["other"]["iou"] < results["other"]["iou_high"]


def test_runs_of_one_seed_are_refused(make_run, refused):
    runs = [make_run(name, {"rise": noise(1)}, seed=4) for name in "ab"]
    assert "have the same --seed 4" in refused("seeds", *runs)
    of_one = {"method": "ltx", "explainer": {"sha256": "e"}}
    runs = [make_run(name, {"last": noise(1)}, seed=seed, **of_one) for seed, name in enumerate("cd")]
    assert "start from the same explainer" in refused("seeds", *runs)


def test_randomised(make_run, ask):
    true = make_run("true", {"last": noise(1), "grad": noise(2), "alone": noise(3)})
    twin = make_run("twin", {"last_randomised": noise(1), "grad_randomised": noise(4)})
    results, _ = ask("randomised", true, twin)
    assert results["last_randomised"]["spearman"] == pytest.approx(1)  # did not notice
    assert abs(results["grad_randomised"]["spearman"]) < 0.05
    assert list(ask("randomised", true, twin, "--methods", "grad")[0]) == ["grad_randomised"]


@pytest.mark.parametrize(
    "question, second, words",
    [
        ("seeds", {"maps": {"b": noise(1)}}, "no two of the runs have maps of the same name"),
        ("randomised", {}, "both have maps a"),
        ("randomised", {"maps": {"b": noise(1)}}, "made with --randomise-weights True"),
        ("shape", {"explainee": "b"}, "the explainee differ"),
        ("shape", {"images": [f"{i}.png" for i in range(N)]}, "the images differ"),
        ("shape", {"classes": np.zeros(N, int)}, "the classes explained differ"),
    ],
)
def test_runs_that_do_not_answer(make_run, refused, question, second, words):
    maps = second.get("maps", {"a": noise(1)})
    second = {key: value for key, value in second.items() if key != "maps"}
    runs = [make_run("one", {"a": noise(1)}), make_run("two", maps, seed=2, **second)]
    line = refused(question, *runs)
    assert line.startswith("error: ") and words in line


def test_wrong_flags(make_run, refused, tmp_path):
    run = make_run("one", {"a": noise(1)})
    assert "is not a run folder" in refused("shape", tmp_path)
    assert "no run has maps named b; there are a" in refused("shape", run, "--methods", "b")
    assert "wanted a share between 0 and 1, got 10" in refused("seeds", run, "--share", 10)
