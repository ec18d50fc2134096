"""`main/explain.py` as a user runs it, on tiny random models."""

import csv
import dataclasses
import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ltx.datasets.base import to_tensor
from ltx.main import explain
from ltx.main.explanation import method
from ltx.main.explanation import run as explanation_run
from ltx.main.explanation.method import PictureMethod
from ltx.main.explanation.pictures import stems
from ltx.main.perturbation_eval import run_perturbation_eval
from ltx.main.runs import run_folder
from ltx.main.runs.mask_files import read_unit, unit_files
from ltx.models.explainee import Explainee
from ltx.models.explainer import Explainer
from ltx.models.explainer_files import read_explainer, save_explainer


@pytest.fixture
def photo(write_images):
    """A folder with one photograph, 40 pixels high and 60 wide."""
    return write_images(["photo.jpg"], size=(40, 60)) / "photo.jpg"


@pytest.fixture
def run(run_script, tiny_pair, places):
    """Runs the script with the tiny pair."""

    def go(*argv, explainer=tiny_pair.explainer):
        flags = [
            "--explainee-model-name",
            "tiny",
            "--explainee-checkpoint",
            tiny_pair.explainee,
            "--device",
            "cpu",
        ]
        flags += [] if explainer is None else ["--explainer-checkpoint", explainer]
        return run_script(explain, *flags, *argv)

    return go


def written(result):
    folder = Path(result.closing["run"])
    return folder, {path.name for path in folder.iterdir() if path.is_file()}


def test_default_is_one_forward_pass_of_the_top_class(run, photo, tiny_pair, places):
    result = run("--input", photo)
    assert result.code == 0, result.err
    folder, files = written(result)
    assert folder == places / "data" / "results" / "explain-photo-tiny-pltx"
    endings = ("overlay.png", "saliency.png", "masked.png", "sheet.png")
    own = {".lock", ".look.json", "run.json", "manifest.csv"}
    assert files == own | {f"photo_{ending}" for ending in endings}
    picture = Image.open(photo)
    image = to_tensor(picture, (32, 32))[None]
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    mask = read_explainer(tiny_pair.explainer)(image)
    probability = explainee(image).softmax(1)[0]
    unit = read_unit(unit_files(folder)[0])
    np.testing.assert_allclose(unit.token_masks["pltx"], mask[:, 0].detach(), atol=1e-6)
    assert unit.classes.tolist() == [probability.argmax()]
    saliency = torch.nn.functional.interpolate(mask, (40, 60), mode="bilinear", align_corners=False)[0, 0]
    ordered = np.sort(saliency.detach().numpy(), axis=None)[::-1].astype(float)
    level = ordered[np.searchsorted(ordered.cumsum(), ordered.sum() / 2)]
    scaled = (saliency / level).clamp(max=1).detach().numpy()[..., None]
    masked = np.asarray(Image.open(folder / "photo_masked.png")).astype(float)
    np.testing.assert_allclose(masked, np.asarray(picture) * scaled, atol=1.5)
    scores = result.closing["results"]["pltx"]
    seen = torch.nn.functional.interpolate(mask, (32, 32), mode="bilinear", align_corners=False)
    kept = explainee(image * seen).softmax(1)[0, probability.argmax()]
    assert scores["masked_probability"] == pytest.approx(100 * kept.item(), rel=1e-4)
    assert scores["mask_area"] == pytest.approx(100 * seen.mean().item(), rel=1e-4)
    top = probability.topk(5)
    line = ", ".join(f"class {c} {p:.1%}" for c, p in zip(top.indices, top.values, strict=True))
    assert line in result.out
    assert f"pltx: keeps {scores['mask_area'] / 100:.1%} of the image" in result.out


def test_the_same_command_writes_nothing_again_and_says_the_same(run, photo):
    first = run("--input", photo, "--steps", "2")
    folder, _ = written(first)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    again = run("--input", photo, "--steps", "2")
    said = [[line for line in out.splitlines() if "free" not in line] for out in (again.out, first.out)]
    assert said[0] == said[1] and len(said[0]) > 3  # free memory differs
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == times
    other = run("--input", photo, "--steps", "2", "--mask-loss-mul", "3")
    assert written(other)[0].name == f"{folder.name}-2"


def test_a_named_folder_of_another_run_is_refused(run, photo):
    assert run("--input", photo, "--run-name", "mine").code == 0
    assert "plan.steps was 0, now 2" in run("--input", photo, "--run-name", "mine", "--steps", "2").error


def test_several_classes_are_contrasted(run, photo, tmp_path, drawing):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"animal {letter}" for letter in "abcdefghij"))
    result = run("--input", photo, "--target-class", "animal c", "7", "--class-names", names, "--steps", "3")
    folder, files = written(result)
    unit = read_unit(unit_files(folder)[0])
    assert (unit.classes.tolist(), unit.index.tolist()) == ([2, 7], [0, 0])
    assert not np.allclose(*unit.token_masks["last"])
    np.testing.assert_allclose(*unit.token_masks["pltx"])
    assert {"photo_2_animal_c_overlay.png", "photo_7_animal_h_saliency.png", "photo_sheet.png"} <= files
    assert "animal c (2), last: keeps" in result.out and "animal h (7), last: keeps" in result.out
    sheet = np.asarray(Image.open(folder / "photo_sheet.png"))
    assert sheet.shape[0] > 2 * 40 and sheet.std() > 10


def test_a_target_class_takes_the_steps_of_ltx_by_default(run, photo, caplog):
    result = run("--input", photo, "--target-class", "3")
    unit = read_unit(unit_files(written(result)[0])[0])
    assert unit.arrays["loss"].shape == (1, 25)
    run("--input", photo, "--target-class", "3", "--steps", "0")
    assert "one forward pass depends on no class" in caplog.text


def test_the_step_with_the_lowest_pos_is_shown_where_asked(run, photo):
    result = run("--input", photo, "--steps", "3", "--show-step", "best_pos")
    assert list(result.closing["results"]) == ["best_pos"]
    assert "best_pos" in read_unit(unit_files(written(result)[0])[0]).token_masks


@pytest.mark.parametrize(
    ("flags", "said", "steps"),
    [
        ((), "none found, so the mask itself is trained", 25),
        (("--recipe", "ordered"), "none found, so the mask itself is trained", 25),
        (("--explainer-model-name", "mask"), "none, the mask itself is trained", 25),
        (("--recipe", "released"), "none found, so its backbone with a fresh head", 50),
        (("--explainer-model-name", "tiny"), "none found, so its backbone with a fresh head", 50),
    ],
)
def test_without_a_pltx_explainer(flags, said, steps, run, photo):
    result = run("--input", photo, *flags, explainer=None)
    assert result.code == 0, result.err
    assert said in result.out
    unit = read_unit(unit_files(written(result)[0])[0])
    assert unit.arrays["loss"].shape == (1, steps)
    assert unit.token_masks["last"].shape[1:] == ((14, 14) if steps == 25 else (4, 4))


def test_a_folder_of_pictures(run, write_images, tmp_path):
    folder = write_images(["a.png", "b.png", "b.jpg"])
    result = run("--input", folder, folder / "a.png")
    assert len(unit_files(written(result)[0])) == 3
    assert written(result)[0].name == f"explain-{folder.name}-tiny-pltx"
    assert [line for line in result.out.splitlines() if line in ("a.png", "b.jpg", "b.png")] == [
        "a.png", "b.jpg", "b.png",
    ]  # fmt: skip
    folder, files = written(result)
    assert {"a_sheet.png", "b_jpg_sheet.png", "b_png_sheet.png", "index.html", "scores.csv"} <= files
    with open(folder / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["a.png", "b.jpg", "b.png"]
    unit = read_unit(unit_files(folder)[0])
    for name in ("probability", "masked_probability", "complement_probability", "mask_area"):
        assert float(rows[0][name]) == pytest.approx(unit.arrays[name][0], rel=1e-4)
    page = (folder / "index.html").read_text()
    assert all((folder / file).is_file() for file in re.findall(r'src="([^"]+)"', page))


def test_side_by_side_is_as_one_by_one(run, write_images):
    """Two pictures and two classes at once, one of them explained already."""
    folder = write_images(["a.png", "b.png", "c.png"])
    flags = ("--target-class", "3", "5", "--steps", "3")
    alone = written(run("--input", folder, *flags, "--batch-size", "1", "--run-name", "alone"))[0]
    together = written(run("--input", folder, *flags, "--batch-size", "4", "--run-name", "together"))[0]
    unit_files(together)[1].unlink()
    run("--input", folder, *flags, "--batch-size", "4", "--run-name", "together")
    for ours, theirs in zip(unit_files(together), unit_files(alone), strict=True):
        ours, theirs = read_unit(ours), read_unit(theirs)
        assert ours.classes.tolist() == [3, 5] and ours.index.tolist() == theirs.index.tolist()
        for variant, masks in theirs.token_masks.items():
            np.testing.assert_allclose(ours.token_masks[variant], masks, rtol=0, atol=1e-5)
        assert ours.arrays.keys() == theirs.arrays.keys()
        assert np.array_equal(ours.arrays["top_class"], theirs.arrays["top_class"])


def test_auto_takes_what_fits_and_backs_off(run, write_images, monkeypatch, caplog):
    """The masks are the same however many pictures are taken at once, and whoever chose their number."""
    folder, maps = write_images(["a.png", "b.png", "c.png"]), PictureMethod.maps

    def short_of_memory(self, batch, explainee, batch_size):
        if batch_size > 2:
            raise MemoryError
        return maps(self, batch, explainee, batch_size)

    flags = ("--input", folder, "--target-class", "3", "--steps", "2")
    plain = run(*flags, "--run-name", "plain")
    assert re.search(r"taking \d+ at once", plain.out) and "two moments" in plain.out
    monkeypatch.setattr(PictureMethod, "maps", short_of_memory)
    for asked in ("auto", "8"):
        caplog.clear()
        short = run(*flags, "--run-name", f"short-{asked}", "--batch-size", asked)
        assert short.code == 0 and "going on with 2" in caplog.text
        for ours, theirs in zip(*[unit_files(written(result)[0]) for result in (plain, short)], strict=True):
            for variant, masks in read_unit(theirs).token_masks.items():
                np.testing.assert_allclose(read_unit(ours).token_masks[variant], masks, rtol=0, atol=1e-5)


@pytest.mark.parametrize("text, words", [("0", "must be at least 1"), ("many", "'auto'")])
def test_a_batch_size_that_makes_no_sense(run, photo, text, words):
    assert words in run("--input", photo, "--batch-size", text).error


def test_exif_orientation_is_respected_and_the_evaluator_sees_the_same(run, run_script, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    ramp = Image.fromarray(np.linspace(0, 255, 48, dtype=np.uint8)[None].repeat(30, 0)).convert("RGB")
    ramp.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    ramp.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    results = [run("--input", tmp_path / name, "--outputs", "npy") for name in ("turned.jpg", "upright.png")]
    masks = [read_unit(unit_files(written(result)[0])[0]).token_masks["pltx"] for result in results]
    np.testing.assert_allclose(*masks, atol=1e-2)
    assert np.load(written(results[0])[0] / "turned_saliency.npy").shape == (48, 30)
    scored = [
        run_script(run_perturbation_eval, written(result)[0], "--metrics", "POS,ADP") for result in results
    ]
    assert scored[0].code == 0, scored[0].err
    assert scored[0].closing["results"]["pltx"]["ADP"] == pytest.approx(
        scored[1].closing["results"]["pltx"]["ADP"], abs=1.0
    )


def test_files_are_as_large_as_the_picture_or_as_is_asked(run, tmp_path):
    Image.effect_noise((1200, 600), 60).save(tmp_path / "wide.png")
    flags = ("--input", tmp_path / "wide.png", "--outputs", "overlay,npy")
    folder, _ = written(run(*flags))
    assert Image.open(folder / "wide_overlay.png").size == (1200, 600)
    assert written(run(*flags, "--max-size", "300"))[0] == folder
    assert Image.open(folder / "wide_overlay.png").size == (300, 150)
    assert np.load(folder / "wide_saliency.npy").shape == (150, 300)


def test_mask_box_cutout_and_json_tell_the_same(run, photo):
    outputs = "mask,box,cutout,json,npy"
    folder, files = written(run("--input", photo, "--outputs", outputs))
    assert {"photo_mask.png", "photo_box.png", "photo_cutout.png", "photo.json"} <= files
    assert "photo_overlay.png" not in files
    said = json.loads((folder / "photo.json").read_text())
    (one,) = said["classes"]
    kept = np.load(folder / "photo_saliency.npy") >= one["smallest_mask"]["level"]
    assert (said["width"], said["height"]) == (60, 40)
    assert np.array_equal(np.asarray(Image.open(folder / "photo_mask.png")) > 0, kept)
    assert one["smallest_mask"]["area"] == pytest.approx(kept.mean())
    x, y, width, height = (one["smallest_mask"]["box"][name] for name in ("x", "y", "width", "height"))
    assert kept[y : y + height, x : x + width].sum() == kept.sum()
    assert kept[y].any() and kept[y + height - 1].any() and kept[:, x].any() and kept[:, x + width - 1].any()
    cutout = np.asarray(Image.open(folder / "photo_cutout.png"))
    assert np.array_equal(cutout[..., 3] > 0, kept)
    assert np.array_equal(cutout[kept][:, :3], np.asarray(Image.open(photo))[kept])
    assert np.asarray(Image.open(folder / "photo_box.png")).shape == (40, 60, 3)


def test_corrected_looks_are_drawn_by_the_same_command(run, photo):
    folder, files = written(run("--input", photo))
    before = (folder / "photo_overlay.png").read_bytes()
    again, files = written(run("--input", photo, "--colormap", "viridis", "--outputs", "overlay,mask"))
    assert again == folder and (folder / "photo_overlay.png").read_bytes() != before
    assert "photo_mask.png" in files


def test_failed_explanations_say_so(run, write_images, monkeypatch, caplog):
    """On the console, in the table, and first in the gallery."""
    says = iter([[[]], [["it failed & <b>so</b>"]]])
    monkeypatch.setattr(explanation_run, "warnings_of", lambda scores, masks: next(says))
    result = run("--input", write_images(["a.png", "<i>.png"][::-1]))
    assert result.out.count("  warning: it failed & <b>so</b>") == 1
    folder = written(result)[0]
    table, page = ((folder / name).read_text() for name in ("scores.csv", "index.html"))
    assert [line.endswith("so</b>") for line in table.splitlines()] == [False, False, True]
    assert "it failed &amp; &lt;b&gt;so" in page and "<b>" not in page and "<i>" not in page
    assert page.index('data-picture="a.png"') < page.index('data-picture="&lt;i&gt;.png"')
    assert 'src="previews/%3Ci%3E.webp"' in page and 'href="%3Ci%3E_sheet.png"' in page


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target-class", "zebra"], "--target-class 'zebra' is no class"),
        (["--target-class", "10"], "classes are 0 ... 9"),
        (["--steps", "-1"], "--steps -1: wanted 0 or more"),
        (["--explainee-model-name", "resnet19"], "unknown model 'resnet19'; nearest names: "),
        (["--explainer-checkpoint", "nothing"], "--explainer-checkpoint nothing: no such file"),
        (["--class-names", "nothing.txt"], "--class-names nothing.txt: no such file or folder"),
        (
            ["--outputs", "overlay,maks"],
            "--outputs maks: no such output (did you mean mask?); there are",
        ),
        (["--colormap", "virdis"], "--colormap virdis: no such colour map; nearest names: viridis"),
        (["--alpha", "2"], "--alpha 2.0: wanted a number from 0 to 1"),
        (["--max-size", "3"], "--max-size 3: wanted at least 32 pixels"),
    ],
)
def test_wrong_flags_are_one_line_and_write_nothing(flags, message, run, photo, places):
    assert message in run("--input", photo, *flags).error
    assert not (places / "data").exists()


def test_wrong_pictures_are_one_line_and_write_nothing(run, photo, tmp_path, places):
    (tmp_path / "page.jpg").write_text("<html>")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    for name, message in {
        "page.jpg": "cannot read image",
        "dot.png": "is 1 x 1 pixels",
        "none.jpg": "no such file or folder",
    }.items():
        error = run("--input", photo, tmp_path / name, "--on-bad-image", "fail").error
        assert message in error and name in error
    assert not (places / "data").exists()
    assert "--input" in run().error


def test_checkpoints_that_do_not_fit_are_one_line(run, photo, tmp_path, digits_weights):
    error = run("--input", photo, explainer=digits_weights.explainer).error
    assert "does not fit explainer 'tiny': 'backbone." in error
    truncated = tmp_path / "cut.safetensors"
    truncated.write_bytes((digits_weights.explainer / "best.safetensors").read_bytes()[:1000])
    assert "cut.safetensors" in run("--input", photo, explainer=truncated).error


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_a_checkpoint_that_wants_to_run_code_is_refused(run, photo, tmp_path):
    torch.save({"state_dict": Hostile(tmp_path / "ran")}, tmp_path / "hostile.ckpt")
    error = run("--input", photo, explainer=tmp_path / "hostile.ckpt").error
    assert "refused" in error and "hostile.ckpt" in error
    assert not (tmp_path / "ran").exists()


def test_file_names_tell_pictures_apart():
    assert stems(["a.png", "b.png"]) == ["a", "b"]
    assert stems(["x/a.png", "y/a.png", "y/b.jpg", "y/b.png"]) == ["x_a", "y_a", "y_b_jpg", "y_b_png"]


def test_run_json_names_what_was_run(run, photo):
    folder, _ = written(run("--input", photo))
    record = json.loads((folder / "run.json").read_text())
    assert record["dataset"] == {"kind": "files", "root": str(photo.parent), "names": ["photo.jpg"]}
    assert (record["method"], record["explainee"]["name"], record["explainer"]["name"]) == (
        "pltx",
        "tiny",
        "tiny",
    )


def test_a_class_conditional_explainer_is_known_by_its_file_and_answers_in_one_pass(
    run, photo, tiny_pair, tmp_path, caplog
):
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    torch.manual_seed(5)
    explainer = Explainer.for_explainee("tiny", explainee, class_conditional=True)
    torch.nn.init.normal_(explainer.condition.key.weight, std=0.3)
    save_explainer(tmp_path / "best.safetensors", explainer, "tiny", {})
    result = run("--input", photo, "--target-class", "3", "7", explainer=tmp_path / "best.safetensors")
    assert result.code == 0, result.err
    unit = read_unit(unit_files(written(result)[0])[0])
    assert list(unit.token_masks) == ["pltx"] and not np.allclose(*unit.token_masks["pltx"])
    image = to_tensor(Image.open(photo), (32, 32))[None]
    expected = explainer(image, torch.tensor([3, 7]))[:, 0].detach()
    np.testing.assert_allclose(unit.token_masks["pltx"], expected, atol=1e-6)
    assert "depends on no class" not in caplog.text
    flagged = run("--input", photo, "--class-conditional", "True", explainer=None)
    assert "none found" in flagged.out, "there is no such explainer of the pair yet"
    assert "knows of no classes" in run("--input", photo, "--class-conditional", "True").error


def test_the_best_recipe_is_taken_without_a_flag(run, photo, tiny_pair, places, monkeypatch):
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    explainer = Explainer.for_explainee("tiny", explainee)
    ordered = places / "checkpoints" / "tiny" / "predicted-ordered" / "best.safetensors"
    save_explainer(ordered, explainer, "tiny", {"recipe": "ordered"})
    monkeypatch.setattr(method, "TRAINED", dataclasses.replace(method.TRAINED, steps=3))
    made = run("--input", photo, explainer=None)
    assert made.code == 0 and str(ordered) in made.out and "ltx3" in made.closing["run"]
    assert "pltx" in run("--input", photo, "--steps", "0", explainer=None).closing["run"]


def test_an_explainer_of_another_recipe_is_named_rather_than_started_anew(run, photo, tiny_pair, places):
    explainee = Explainee.from_name("tiny", tiny_pair.explainee)
    for kind, conditional in (("class_conditional-ordered", True), ("predicted-ordered", False)):
        assert "none found" in run("--input", photo, "--class-conditional", conditional, explainer=None).out
        explainer = Explainer.for_explainee("tiny", explainee, class_conditional=conditional)
        save_explainer(places / "checkpoints" / "tiny" / kind / "best.safetensors", explainer, "tiny", {})
        asked = ("--input", photo, "--class-conditional", conditional, "--recipe", "released")
        result = run(*asked, explainer=None)
        assert result.code == 2 and "add --recipe ordered" in result.error


def test_corrected_class_names_are_drawn_by_the_same_command(run, photo, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefghij"))
    flags = ("--input", photo, "--class-names", names)
    folder, _ = written(run(*flags))
    sheet = folder / "photo_sheet.png"
    os.utime(sheet, ns=(1, 1))
    assert run(*flags).code == 0 and sheet.stat().st_mtime_ns > 1, "the names are newer than the sheet"
    drawn = sheet.stat().st_mtime_ns
    assert run(*flags).code == 0 and sheet.stat().st_mtime_ns == drawn


def test_a_folder_that_cannot_be_made_is_told_at_once(run, photo, places, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", "data")

    monkeypatch.setattr(run_folder, "write_json", read_only)
    assert "Read-only file system" in run("--input", photo).error
    assert len(list((places / "data" / "results").iterdir())) == 1
