"""The page as it is served: through gradio's client, and clicked in a browser."""

import json
import re
import shutil
import socket
import threading
import time
import zipfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from ltx.main.page.options import AppOptions
from ltx.tests.main.page.test_uploads import png_of

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed")
pytest.importorskip("gradio")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MODEL = "vit_digits"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of a page that runs in a thread, with the shipped pair of digits."""
    from ltx.main.page.server import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    patch, temporary = pytest.MonkeyPatch(), tmp_path_factory.mktemp("temporary")
    patch.setattr("tempfile.tempdir", str(temporary))
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "NO_PROXY", "GRADIO_ANALYTICS_ENABLED"):
        patch.setenv(name, "")
    options = AppOptions(explainee_model_name=MODEL, port=port, steps=3, max_megabytes=1, device="cpu")
    stop, failed = threading.Event(), []

    def run():
        try:
            serve(options, stop)
        except BaseException as error:
            failed.append(error)

    server = threading.Thread(target=run, daemon=True)
    server.start()
    while not failed:
        try:
            urlopen(f"http://127.0.0.1:{port}/config", timeout=60).close()
            break
        except OSError:
            time.sleep(0.05)
    assert not failed, failed
    yield f"http://127.0.0.1:{port}/"
    stop.set()
    server.join(60)
    patch.undo()
    assert not server.is_alive() and not list(temporary.glob("ltx-app-*")), "the folder goes with the page"


@pytest.fixture
def digit(tmp_path):
    """A file with a digit."""
    from torchvision.transforms.v2.functional import to_pil_image

    from ltx.datasets.digits import DigitsOnPhotos

    to_pil_image(DigitsOnPhotos("test", 1)[0]["image"]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


@pytest.fixture
def visitor(address):
    """A client of its own session."""
    return gradio_client.Client(address, verbose=False, analytics_enabled=False)


def look(visitor, path, model=MODEL):
    """Choices and what is said of a picture."""
    classes, said, *_ = visitor.predict(gradio_client.handle_file(str(path)), model, api_name="/look")
    return classes["choices"], said


def test_through_the_client(visitor, digit):
    choices, said = look(visitor, digit)
    assert len(choices) == 5 and "Explaining" in said
    asked = (gradio_client.handle_file(str(digit)), MODEL, choices[1][1])
    job = visitor.submit(*asked, 3, api_name="/why")
    overlay, _, said, packed = job.result(timeout=120)
    assert re.search(r"Kept [\d.]+% of the picture: alone it gives [\d.]+%, without it [\d.]+%", said)
    assert Image.open(overlay).size == (64, 64)
    with zipfile.ZipFile(packed["value"] if isinstance(packed, dict) else packed) as archive:
        assert "saliency.npy" in archive.namelist()
    gallery, _ = visitor.predict(*asked, ["full_grad", "input_gradient"], api_name="/compare")
    assert [one["caption"] for one in gallery] == ["full_grad", "input_gradient"]


def test_bad_files_and_names_are_one_line_and_the_next_request_works(visitor, digit, tmp_path):
    (tmp_path / "page.png").write_text("<html>")
    for path, model, words in (
        (tmp_path / "page.png", MODEL, "page.png is no picture"),
        (png_of(tmp_path / "bomb.png", 20_000, 10_000), MODEL, "bomb.png has more than 50 megapixels"),
        (digit, "resnet19", "unknown model"),
        (digit, "hf:/etc", "type an alias or a timm name"),
    ):
        choices, said = look(visitor, path, model)
        assert choices == [] and words in said and 'role="alert"' in said
        assert "Traceback" not in said and "/tmp" not in said
    assert len(look(visitor, digit)[0]) == 5


def test_ten_uploads_at_a_time(address, digit, tmp_path):
    import psutil

    Image.effect_noise((3000, 2000), 1).convert("RGB").save(tmp_path / "large.jpg", quality=5)
    found = []

    def upload():
        visitor = gradio_client.Client(address, verbose=False, analytics_enabled=False)
        choices, _ = look(visitor, tmp_path / "large.jpg")
        asked = gradio_client.handle_file(str(tmp_path / "large.jpg")), MODEL, choices[0][1], 2
        found.append("alone it gives" in visitor.predict(*asked, api_name="/why")[2])

    before = psutil.Process().memory_info().rss
    threads = [threading.Thread(target=upload) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert found == [True] * 10 and psutil.Process().memory_info().rss - before < 2**30


def test_what_is_not_served(address, visitor, digit, tmp_path):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../a.png"\r\n\r\n%s\r\n--x--\r\n'
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for size in (1_050_000, 1_200_000):
        with pytest.raises(HTTPError) as refused:
            urlopen(Request(address + "gradio_api/upload", body % bytes(size), kind), timeout=60)
        assert refused.value.code == 413
    (stored,) = json.load(urlopen(Request(address + "gradio_api/upload", body % b"x", kind), timeout=60))
    assert Path(stored).name == "a.png" and Path(stored).parents[1].name.startswith("ltx-app-")
    for path in ("gradio_api/file=/etc/passwd", "gradio_api/file=https://example.com/", "monitoring", "docs",
                 f"gradio_api/file={digit}"):  # fmt: skip
        with pytest.raises(HTTPError) as refused:
            urlopen(address + path, timeout=60)
        assert refused.value.code == 404, path
    for path in (str(digit), "/etc/passwd", "https://example.com/a.png"):  # not uploaded
        payload = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for data in ([payload, MODEL], [None, payload]):
            body = json.dumps({"data": data}).encode()
            call = Request(address + "gradio_api/call/look", body, {"Content-Type": "application/json"})
            event = json.load(urlopen(call, timeout=60))["event_id"]
            answer = urlopen(f"{address}gradio_api/call/look/{event}", timeout=60).read().decode()
            assert answer.startswith("event: error"), answer


def test_a_request_that_is_cancelled_frees_the_work(visitor, digit):
    choices, _ = look(visitor, digit)
    job = visitor.submit(gradio_client.handle_file(str(digit)), MODEL, choices[0][1], 50, api_name="/why")
    while not job.outputs() and not job.done():
        time.sleep(0.02)
    job.cancel()
    for target in (1, 2, 3):
        said = visitor.predict(
            gradio_client.handle_file(str(digit)), MODEL, choices[target][1], 1, api_name="/why"
        )[2]
        assert "alone it gives" in said


@pytest.fixture
def browser(tmp_path):
    """Chromium, driven by selenium; its downloads go to `tmp_path/downloads`."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium or no chromedriver on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,1000",
    ):  # fmt: skip
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def wait(condition, seconds=240):
    """The condition's value once it holds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)
    return value


def test_in_a_browser(address, browser, digit, tmp_path):
    """Upload, explain, switch class, compare, download, a bad file."""

    def find(selector):
        return browser.find_elements("css selector", selector)

    def said():
        return browser.execute_script("return document.querySelector('#said')?.innerText ?? ''")

    def drop(path):
        wait(lambda: find("#picture input[type=file]"))[0].send_keys(str(path))

    browser.get(address)
    drop(digit)
    first = wait(lambda: "alone it gives" in said() and said())
    assert len(find("#classes input")) == 5 and find("#overlay img") and find("#kept img")
    find("#classes input")[1].click()
    second = wait(lambda: "alone it gives" in said() and said() != first and said())
    assert second.split(":")[0] != first.split(":")[0]
    find("#compare")[0].click()
    wait(lambda: len(find("#others img")) >= 3)
    wait(lambda: find("#download")[0].is_enabled())
    find("#download")[0].click()
    packed = wait(lambda: list(Path(tmp_path / "downloads").glob("*.zip")))
    assert zipfile.is_zipfile(packed[0])
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert loaded and not [name for name in loaded if not name.startswith((address, "data:", "blob:"))]
    (tmp_path / "page.png").write_text("<html>")
    drop(tmp_path / "page.png")
    wait(lambda: "page.png is no picture" in said())
    assert find("#said .wrong") and not find("#overlay img")
    find("#picture button[aria-label='Remove Image']")[0].click()
    wait(lambda: not said())
    drop(digit)
    assert wait(lambda: "alone it gives" in said() and said()).split(":")[0] == first.split(":")[0]
