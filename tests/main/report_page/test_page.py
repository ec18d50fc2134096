"""The page as a file: everything inside, nothing from outside, nothing that escapes."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ltx.config import UserError
from ltx.main import report
from ltx.main.baselines import run_baselines
from ltx.main.report_page.galleries import most_different, sheets, spread
from ltx.main.report_page.rows import Row
from ltx.main.runs.skipped import write_list
from ltx.main.seg_classification import run_seg_cls_opt

EVIL = "<img src=x onerror=alert(1)>&\"'"


class Tags(HTMLParser):
    """Every tag with its attributes, and that each is closed."""

    VOID = ("meta", "link", "img", "input", "br", "line", "path", "use")

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_page_is_whole_and_self_contained(make_run, write_page, tmp_path):
    runs = [
        make_run("ltx", metrics="all", segmentation_too=True, fills=("black", "mean")),
        make_run("others", variants=("random", "grad", "grad_randomised"), fills=("black", "mean")),
    ]
    text = write_page(*runs)
    tags = Tags(text).found
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    hrefs = [a["href"] for tag, a in tags if tag == "a"]
    assert hrefs and all(href[0] == "#" and href[1:] in ids for href in hrefs)
    pictures = [a for tag, a in tags if tag == "img"]
    assert len(pictures) >= 2 * 5 and all(
        a["src"].startswith("data:image/webp;base64,") and a["alt"] for a in pictures
    )
    for name in ("src", "href", "xlink:href"):
        assert all(a[name].startswith(("data:", "#")) for _, a in tags if name in a)
    assert not re.search(r"url\((?!#)|@import", text)
    headings = re.findall(r"<h[23][^>]*>([^<]*)", text)
    for wanted in ("Perturbation: 6 images, predicted class, fill black", "Curves", "Sheets", "Segmentation",
                   "The same with another fill: 6 images, predicted class, fill mean",
                   "Sanity check: the same methods on models with random weights"):  # fmt: skip
        assert wanted in headings
    beside = {
        path.suffix: path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".html"
    }
    assert set(beside) == {".md", ".tex"} and all("(last of 25 steps)" in part for part in beside.values())
    assert "LTX (last of 25 steps) has the best figure of 4 methods in " in text


def test_provenance(make_run, write_page, tmp_path):
    run = make_run()
    write_list(run / "skipped.csv", {"7<b>": "unreadable", "8": "=empty"})
    record = json.loads((run / "run.json").read_text())
    text = write_page(run)
    for fact in (record["versions"]["torch"], record["versions"]["commit"], record["created"], "seed 42"):
        assert fact in text
    assert "2 images were skipped" in text and "<li>7&lt;b&gt;: unreadable</li>" in text


def test_html_in_names_is_escaped(make_run, write_page, tmp_path):
    """Names of runs, variants, images, and what run.json says."""
    run = make_run(variants=("last", EVIL.replace("/", "")), record={"method": EVIL})
    write_list(run / "skipped.csv", {EVIL: EVIL})
    record = json.loads((run / "run.json").read_text()) | {"command": ["main/x.py", EVIL]}
    (run / "run.json").write_text(json.dumps(record))
    manifest = (run / "manifest.csv").read_text().replace("\n0,0,", '\n0,"<script>alert(2)</script>",')
    (run / "manifest.csv").write_text(manifest)
    text = write_page(f"<b>{'x'}={run}", title="<script>alert(0)</script>")
    tags = Tags(text).found
    assert [tag for tag, _ in tags if tag == "script"] == ["script"]
    assert not any("onerror" in attributes for _, attributes in tags) and ("b", {}) not in tags
    assert "&lt;script&gt;alert(2)" in text and "&lt;script&gt;alert(0)" in text
    for suffix in (".md", ".tex"):
        assert "<" not in (tmp_path / "out" / f"report{suffix}").read_text()


def test_variant_names_lead_nowhere(make_run, tmp_path):
    """A sheet is looked for by the variant's name, which comes from a file: it must stay in its folder."""
    (tmp_path / "secret.png").write_bytes(b"")
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    shutil.copy(next(make_run(segmentation_too=True).rglob("last.png")), tmp_path / "secret.png")
    shutil.copy(tmp_path / "secret.png", folder / "last.png")

    names = ("../../secret", "last", "/etc/passwd", "..")
    run = SimpleNamespace(name="run", record=SimpleNamespace(options={}))
    rows = [Row(name, name, run, np.array([]), 1, {}, folder) for name in names]
    assert [sheet.caption for sheet in sheets(SimpleNamespace(rows=rows))] == ["LTX (last)"]


def test_maps_without_their_images(make_run, write_page, tmp_path, caplog):
    run = make_run(dataset={"kind": "folder", "root": "nowhere", "labels": None})
    text = write_page(run)
    assert "the image is no longer there" in text and "--images-path" in caplog.text
    with pytest.raises(UserError, match=r"--images-path .*elsewhere"):
        write_page(run, images_path=Path("elsewhere"))


def test_maps_that_are_gone(make_run, write_page, tmp_path):
    run = make_run()
    file = next((run / "masks").iterdir())
    with h5py.File(file, "a") as opened:
        del opened["saliency/last"]
    with pytest.raises(UserError, match=r"holds no map 'last' of image 0"):
        write_page(run)


def test_same_input_same_page(make_run, write_page, tmp_path):
    run = make_run(metrics="all")
    assert write_page(run) == write_page(run)


def test_spread():
    assert spread(10, 4) == [0, 2, 5, 7] and spread(3, 8) == [0, 1, 2]


def test_most_different():
    reference = np.array([5.0, 1.0, np.nan, 3.0, 9.0])
    rival = np.array([1.0, 5.0, 2.0, 3.0, 8.0])
    assert most_different(reference, rival, True, 2) == ([0, 4], [1])
    assert most_different(reference, rival, False, 1) == ([1], [0])


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--output", "x.pdf"], "--output x.pdf: wanted the name of a page, ending in .html"),
        (["--resamples", "5"], "--resamples must be at least 100"),
        (["--gallery-images", "0"], "--gallery-images must be at least 1"),
        (["--reference", "nothing"], "--reference nothing: no such row; there are pltx, last"),
        (["--rival", "nothing"], "--rival nothing: no such row"),
        (["--differ-by", "gini"], "--differ-by gini: no such metric in perturbation; there are POS, NEG"),
        (["--exclude-manifest", "nothing.csv"], "--exclude-manifest nothing.csv: no such file or folder"),
    ],
)  # fmt: skip
def test_wrong_flags(make_run, run_script, tmp_path, flags, words):
    output = [] if "--output" in flags else ["--output", tmp_path / "report.html"]
    assert words in run_script(report, make_run(), *output, *flags).error


def test_unwritable_output(make_run, run_script, tmp_path):
    (tmp_path / "file").write_text("")
    assert (
        "cannot write" in run_script(report, make_run(), "--output", tmp_path / "file" / "report.html").error
    )
    (tmp_path / "folder.html").mkdir()
    assert "is a folder" in run_script(report, make_run(), "--output", tmp_path / "folder.html").error


def test_script(make_run, run_script, tmp_path):
    run = make_run()
    result = run_script(report, run, "--output", tmp_path / "r.html", "--resamples", "100")
    summary = json.loads(next((run / "results").rglob("summary.json")).read_text())
    assert result.code == 0 and result.closing["run"] == str(tmp_path / "r.html")
    assert result.closing["results"]["last"]["POS"] == summary["rows"]["last"]["POS"]["mean"]
    assert all((tmp_path / f"r{suffix}").is_file() for suffix in (".html", ".md", ".tex"))
    assert "report:" in result.out


def test_real_runs(tiny_pair, run_script, tmp_path):
    """What the scripts themselves store, from LTX and another method, read back."""
    common = ["--max-images", "4", "--default-root-dir", tmp_path, "--unit-size", "3"]
    flags = tiny_pair.flags
    ltx = run_script(
        run_seg_cls_opt, *flags, *common, "--n_epochs_to_optimize_stage_b", "2", "--run-name", "ltx"
    )
    place = flags.index("--explainer-checkpoint")
    flags = flags[:place] + flags[place + 2 :]
    other = run_script(run_baselines, *flags, *common, "--method", "random", "--run-name", "other")
    result = run_script(report, tmp_path / "ltx", tmp_path / "other", "--output", tmp_path / "r.html")
    assert result.code == 0, result.err
    both = ltx.closing["results"] | other.closing["results"]
    assert result.closing["results"].keys() == both.keys()
    for label, row in both.items():
        assert result.closing["results"][label] == pytest.approx(row)
