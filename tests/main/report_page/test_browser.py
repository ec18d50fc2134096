"""The page in headless Chromium, where one is installed."""

import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
LISTEN = """
<script>let violations = 0; document.addEventListener("securitypolicyviolation", () => violations++);</script>
"""
PROBE = """
<script>
window.addEventListener("load", async () => {
  const found = {violations};
  for (const one of document.querySelectorAll("details")) one.open = true;
  const pictures = [...document.images];
  await Promise.all(pictures.map((picture) => picture.decode().catch(() => 0)));
  found.pictures = pictures.length;
  found.loaded = pictures.filter((picture) => picture.naturalWidth > 0).length;
  const table = document.querySelector("table.sortable");
  const heads = [...table.tHead.rows[0].cells];
  const column = heads.findIndex((head) => head.textContent.startsWith("POS"));
  const read = () => [...table.tBodies[0].rows].map((row) => 
    row.cells[column].querySelector(".value").textContent);
  found.before = read();
  heads[column].querySelector("button").click();
  found.ascending = read();
  found.aria = heads[column].getAttribute("aria-sort");
  heads[column].querySelector("button").click();
  found.descending = read();
  heads[0].querySelector("button").click();
  found.names = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  found.fetched = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:"));
  const box = document.getElementById("intervals");
  const small = table.querySelector("td small");
  found.shown = getComputedStyle(small).display;
  box.click();
  found.hidden = getComputedStyle(small).display;
  found.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
  const lines = [...document.querySelectorAll(".panels .line")];
  document.querySelector('.legend button[data-row="1"]').click();
  const faint = lines.filter((line) => getComputedStyle(line).opacity < 0.5);
  found.faint = [faint.length, lines.filter((line) => line.dataset.row !== "1").length];
  const look = async (one, press) => {
    press(one);
    await new Promise((done) => setTimeout(done, 500));
    const canvases = [...document.querySelectorAll("dialog canvas")];
    const pixels = canvases.map((one) => one.toDataURL());
    const opened = {
      title: document.getElementById("view-title").textContent,
      captions: [...document.querySelectorAll("dialog figcaption")].map((one) => one.textContent),
      canvases: canvases.length,
      different: new Set(pixels).size,
    };
    document.querySelector("dialog").close();
    return opened;
  };
  found.picture = await look(document.querySelector("button.open"), (one) => one.click());
  const enter = new KeyboardEvent("keydown", {key: "Enter"});
  found.point = await look([...document.querySelectorAll(".point")].pop(), (one) => one.dispatchEvent(enter));
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_in_a_browser(make_run, write_page, tmp_path):
    """Tables sort, pictures load, nothing is fetched, intervals hide, the page fits the window."""
    runs = [
        make_run("ltx", variants=("pltx", "last"), metrics="all", segmentation_too=True),
        make_run("others", variants=("random", "grad", "cam"), metrics="NEG,POS"),
    ]
    text = write_page(*runs).replace('<meta charset="utf-8">', '<meta charset="utf-8">' + LISTEN)
    page = tmp_path / "probed.html"
    page.write_text(text.replace("</body>", PROBE + "</body>"))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=900,700",
        "--virtual-time-budget=10000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    probe = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert probe, dom[-2000:]
    found = json.loads(probe.group(1))
    assert found["pictures"] == found["loaded"] > 10
    numbers = [float(text) for text in found["before"]]
    assert len(numbers) == 5 and numbers not in (sorted(numbers), sorted(numbers)[::-1])
    assert [float(text) for text in found["ascending"]] == sorted(numbers) and found["aria"] == "ascending"
    assert [float(text) for text in found["descending"]] == sorted(numbers)[::-1]
    names = ["cam", "grad", "LTX (last of 25 steps)", "pLTX", "random map"]
    assert found["names"] == names
    views = ["image", "LTX (last of 25 steps)", "pLTX", "random map", "grad", "cam"]
    for opened in (found["picture"], found["point"]):
        assert [words.split(":")[0] for words in opened["captions"]] == views
        assert opened["canvases"] == 10 and "image" in opened["title"]
        assert opened["different"] == 6  # the two runs have two maps in common
    assert found["picture"]["title"] != found["point"]["title"]
    assert found["fetched"] == [] and found["violations"] == 0
    assert found["shown"] == "block" and found["hidden"] == "none"
    assert not found["wide"]
    assert found["faint"][0] == found["faint"][1] > 8  # other lines than the one whose name was pressed
