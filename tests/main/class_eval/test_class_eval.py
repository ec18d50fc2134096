"""Does the map follow the class: what pictures are asked, how maps are measured, the script."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ltx.config import UserError
from ltx.datasets.build import batches
from ltx.datasets.digits import DigitsOnPhotos
from ltx.datasets.gtsegs import ImagenetSegmentation
from ltx.main.class_eval import evaluator, run_class_eval
from ltx.main.class_eval.questions import KINDS, Question, ask_about, peaks_on_asked, share_on_asked
from ltx.main.perturbation_eval import run_perturbation_eval
from ltx.main.runs import mask_job
from ltx.main.runs.mask_files import unit_files
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import save_explainer
from ltx.tests.support.segmentation_sets import pictures, write_gtsegs


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(evaluator, "write_sheet", lambda *args: None)


def question(asked, other, kind="object"):
    return Question("a", kind, 3, np.array(asked, bool), np.array(other, bool))


# Measuring.


def test_share_by_hand():
    asked, other = [[1, 0], [0, 0]], [[0, 0], [1, 1]]
    assert share_on_asked(np.array([[0.6, 9.0], [0.1, 0.3]]), question(asked, other)) == pytest.approx(0.6)
    assert share_on_asked(np.zeros((2, 2)), question(asked, other)) == 0


@pytest.mark.parametrize(
    "place, hit",
    [
        ((20, 20), True),
        ((20, 24), True),
        ((20, 25), False),
        ((23, 23), True),
        ((24, 22), False),
        ((40, 40), False),
    ],
)
def test_a_peak_counts_within_15_pixels_of_224(place, hit):
    """At 64 pixels that is 4.29, so 4 are within, 3 and 3 (4.24) too, 4 and 2 (4.47) not."""
    asked, other, saliency = np.zeros((3, 64, 64))
    asked[20, 20], other[60, 60], saliency[place] = 1, 1, 0.5
    assert peaks_on_asked(saliency, question(asked, other)) == hit


def test_a_peak_nearer_to_the_other_object_or_just_as_near_does_not_count():
    asked, other, saliency = np.zeros((3, 64, 64))
    asked[20, 20], other[20, 26] = 1, 1
    for x, hit in ((22, True), (23, False), (24, False)):
        saliency[:] = 0
        saliency[20, x] = 1
        assert peaks_on_asked(saliency, question(asked, other)) == hit


def test_regions_that_fill_the_picture_count_by_their_pixels():
    asked, saliency = np.zeros((2, 64, 64))
    asked[:, :32] = 1
    saliency[5, 31], saliency[5, 32] = 1, 0.9
    assert peaks_on_asked(saliency, question(asked, 1 - asked))
    saliency[5, 32] = 2
    assert not peaks_on_asked(saliency, question(asked, 1 - asked))
    assert not peaks_on_asked(saliency, question(np.zeros((64, 64)), asked, "absent"))


# What is asked.


def questions_of(images, chosen, explainee, seed):
    """Pictures and questions, a row each, as a job and its evaluation make them."""
    (data,) = batches(images, chosen, len(chosen))
    with torch.no_grad():
        asked = ask_about(images, seed)(data, explainee(data["image"]), explainee)
    rows = zip(asked.rows.tolist(), asked.figures["kind"].tolist(), asked.classes.tolist(), strict=True)
    positions = [chosen[row] for row in asked.rows.tolist()]
    return data["image"][asked.rows], [
        Question.of(images.names[position], images[position], KINDS[kind], label)
        for position, (_, kind, label) in zip(positions, rows, strict=True)
    ]


def test_two_digits_are_asked_for_both_and_for_one_that_is_not_there(make_explainee):
    images = DigitsOnPhotos("tune", 6, (32, 32), n_digits=2)
    explainee = make_explainee(num_classes=10)
    pixels, questions = questions_of(images, [4, 1], explainee, seed=0)
    assert [q.kind for q in questions] == ["object", "object", "absent"] * 2
    for start, position in ((0, 4), (3, 1)):
        sample, (left, right, absent) = images[position], questions[start : start + 3]
        assert torch.equal(pixels[start], sample["image"]) and torch.equal(pixels[start + 2], sample["image"])
        assert (left.label, right.label) == (sample["label"], sample["second_label"])
        assert (left.asked == (sample["mask"] == 1).numpy()).all() and (left.other == right.asked).all()
        assert (right.other == left.asked).all() and not absent.asked.any()
        assert absent.label not in (left.label, right.label)
    again = questions_of(images, [1], explainee, seed=0)[1]
    assert [q.label for q in again] == [q.label for q in questions[3:]], "depends on the picture alone"


def test_absent_classes_are_improbable(make_explainee):
    images = DigitsOnPhotos("tune", 20, (32, 32), n_digits=2)
    explainee = make_explainee(num_classes=10)
    pixels, questions = questions_of(images, list(range(20)), explainee, seed=1)
    probability = explainee(pixels).softmax(1)
    absent = [i for i, q in enumerate(questions) if q.kind == "absent"]
    assert len(absent) == 20 and len({questions[i].label for i in absent}) > 4
    assert max(probability[i, questions[i].label].item() for i in absent) < 0.05


def test_outlined_objects_are_asked_for_their_class_and_the_background_for_the_predicted_one(
    tmp_path, make_explainee
):
    images, masks = pictures([(20, 30), (18, 16), (24, 24)])
    write_gtsegs(tmp_path / "gtsegs_ijcv.mat", images, masks)
    explainee = make_explainee("cnn")
    plain = ImagenetSegmentation(tmp_path, (32, 32))
    with torch.no_grad():
        predicted = [int(explainee(plain[i]["image"][None]).argmax()) for i in range(3)]
    labels = [predicted[0], (predicted[1] + 1) % 5, predicted[2]]
    rows = "\n".join(f"{i},{label}" for i, label in enumerate(labels))
    (tmp_path / "labels.csv").write_text(f"index,label\n{rows}\n")
    labelled = ImagenetSegmentation(tmp_path, (32, 32))
    _, questions = questions_of(labelled, [0, 1, 2], explainee, seed=0)
    kinds = [(q.name, q.kind) for q in questions if q.kind != "absent"]
    assert kinds == [("0", "object"), ("1", "object"), ("1", "background"), ("2", "object")]
    of_one = {q.kind: q for q in questions if q.name == "1"}
    assert of_one["object"].label == labels[1] and of_one["background"].label == predicted[1]
    assert (of_one["object"].asked == of_one["background"].other).all() and of_one["object"].asked.any()
    assert (of_one["object"].asked ^ of_one["object"].other)[labelled[1]["mask"].numpy() >= 0].all()
    with pytest.raises(UserError, match="image 0 has no label"):
        questions_of(plain, [0], explainee, seed=0)


# The script.


@pytest.fixture
def run(run_script, tiny_pair, places, tmp_path):
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    torch.manual_seed(5)
    explainer = Explainer.for_explainee("tiny", explainee, class_conditional=True)
    torch.nn.init.normal_(explainer.condition.key.weight, std=0.3)
    save_explainer(tmp_path / "asked" / "best.safetensors", explainer, "tiny", {})

    def go(*argv, explainer=tmp_path / "asked"):
        return run_script(
            run_class_eval, "--explainee-model-name", "tiny", "--explainee-checkpoint", tiny_pair.explainee,
            "--explainer-checkpoint", explainer, "--device", "cpu", "--num-workers", "0",
            "--dataset-type", "digits", "--split", "tune", "--max-images", "5", *argv,
        )  # fmt: skip

    return go


def test_script_measures_all_methods(run, tiny_pair):
    result = run("--plain-checkpoint", tiny_pair.explainer, "--method", "input_gradient,random")
    assert result.code == 0, result.err
    rows = result.closing["results"]
    assert rows.keys() == {"pltx_class_conditional", "pltx", "input_gradient", "random"}
    metrics = {"object_peak", "object_share", "object_mean", "absent_mean", "absent_ratio"}
    assert all(row.keys() == metrics for row in rows.values())
    assert rows["pltx"]["absent_ratio"] == pytest.approx(100), "the plain mask is the same for every class"
    assert rows["pltx"]["object_share"] == pytest.approx(50), "and so is its weight on either digit"
    assert rows["pltx_class_conditional"]["absent_ratio"] != pytest.approx(100, abs=1e-3)
    folder = Path(result.closing["run"])
    lines = (folder / "per_question.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 5 * 3
    cells = [line.split(",") for line in lines[1:] if line.startswith("random,") and ",object," in line]
    assert np.mean([float(cell[5]) for cell in cells]) * 100 == pytest.approx(
        rows["random"]["object_share"], rel=1e-4
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["protocol"] == "classes" and summary["rows"]["random"]["object_peak"]["n"] == 10


def test_ltx_goes_on_from_there(run, caplog):
    result = run("--steps", "3", "--finetune-lr", "1e-2", "--method", "random")
    assert result.code == 0, result.err
    rows = result.closing["results"]
    assert {"pltx_class_conditional", "last_class_conditional"} <= rows.keys() and "pltx" not in rows
    assert rows["last_class_conditional"] != rows["pltx_class_conditional"]
    assert "not class-conditional stands beside it" in caplog.text


def test_killed_and_resumed_it_gives_the_same(run, tmp_path, monkeypatch, caplog):
    """Killed after the first of three mask files; then that file is not made again."""
    monkeypatch.setattr(run_class_eval, "_UNIT", 2)
    flags = (
        "--method",
        "random,input_gradient",
        "--steps",
        "2",
        "--default-root-dir",
        tmp_path,
        "--run-name",
    )
    whole = run(*flags, "whole")
    assert whole.code == 0, whole.err
    write_unit = mask_job.write_unit

    def killed_at_the_second(path, unit):
        if path.name != "000000-000001.h5":
            raise KeyboardInterrupt
        write_unit(path, unit)

    monkeypatch.setattr(mask_job, "write_unit", killed_at_the_second)
    assert run(*flags, "killed").code == 130
    monkeypatch.setattr(mask_job, "write_unit", write_unit)
    (file,) = unit_files(tmp_path / "killed")
    made = file.stat().st_mtime_ns
    resumed = run(*flags, "killed")
    assert resumed.closing["results"] == whole.closing["results"]
    assert file.stat().st_mtime_ns == made and len(unit_files(tmp_path / "killed")) == 3
    for name in ("per_question.csv", "masks/000002-000003.h5"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_its_mask_files_are_read_by_the_evaluator(run, run_script, tmp_path):
    folder = run("--method", "random").closing["run"]
    scored = run_script(run_perturbation_eval, folder, "--metrics", "POS", "--device", "cpu")
    assert scored.code == 0, scored.err
    assert scored.closing["results"].keys() == {"pltx_class_conditional", "random"}


def test_mistakes(run, tiny_pair, tmp_path):
    assert "knows of no classes" in run(explainer=tiny_pair.explainer).error
    assert "no such file" in run("--plain-checkpoint", tmp_path / "nothing").error
    assert "no such method" in run("--method", "grad_camp").error
