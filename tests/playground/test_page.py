"""The page as a browser and Gradio's client see it.

Gradio is an extra that tfcq's own environment does not install, as it refuses the newest Pillow. Where it is:
`python -m pytest tests/playground`. The browser's test needs playwright, too, and Chromium.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tiny_models
from commands import command, start
from numpy_model import GIVEN_A_CLASS, SHAPE, WITH_CLASSES, Model
from PIL import Image

for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # the page is on this machine

pytest.importorskip("gradio", reason="extra `demo`: pip install 'tfcq[demo]'")

from gradio import processing_utils  # noqa: E402 - after the skip
from gradio_client import Client, handle_file  # noqa: E402 - after the skip

from tfcq.playground import scores  # noqa: E402
from tfcq.playground.model import About  # noqa: E402
from tfcq.playground.page import page  # noqa: E402
from tfcq.playground.server import serving  # noqa: E402

ABOUT = About("mine", ["A model of tests."], "")


def blocks_of(make, model):
    """The page of a model, whose scores are compared with those of nine images of one value each."""
    playground = make(model)
    rows = [{"log_prob": 0.0, "bits_per_dim": value / 10, "complexity": 1.0} for value in range(0, 90, 10)]
    held = scores.HeldOut(rows)
    score = (lambda image: held.score(playground.numbers_of(image), image.size)) if playground.scores else None
    return page(playground, ABOUT, score)


def labels_of(blocks):
    """The labels of all components, and of tabs."""
    return {one["props"].get("label") for one in blocks.get_config_file()["components"]}


def test_the_page_has_what_the_model_can_do(make):
    whole = labels_of(blocks_of(make, Model()))
    assert whole >= {"New images", "A picture of yours", "Between two pictures", "Super-resolution", "Temperature", "Seed"}
    little = labels_of(blocks_of(make, Model({"sample"})))
    assert "New images" in little and not little & {"A picture of yours", "Between two pictures", "Super-resolution"}
    scored = labels_of(blocks_of(make, Model({"likelihood"})))
    assert "A picture of yours" in scored and not scored & {"New images", "Reconstruction", "Between two pictures"}


@pytest.fixture(name="asked")
def fixture_asked():
    """The model of the page; tests may have another."""
    return Model()


@pytest.fixture(name="client")
def fixture_client(make, asked, tmp_path, monkeypatch):
    """Gradio's own client of a page."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, serving(blocks_of(make, asked), listener):
        yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}", download_files=str(tmp_path / "answers"), verbose=False)


def pixels(path):
    return np.asarray(Image.open(path))


def values(path, columns, rows=1):
    """The value in the middle of each cell of a shown picture."""
    picture = pixels(path)
    assert picture.shape[2] == 3 and picture.shape[1] >= 512
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    middles = picture[height // 2 :: height, width // 2 :: width, 0][:rows, :columns]
    return middles.ravel().tolist()


def test_samples_pictures_and_what_is_between(client, picture):
    said, shown = client.predict(4, 2.0, 5, api_name="/sample")
    assert said == "" and values(shown, 2, 2) == [205, 215, 225, 235]
    said, *shown, text = client.predict(handle_file(str(picture)), api_name="/picture")
    grey = (299 * 200 + 587 * 100 + 114 * 50 + 500) // 1000
    assert said == "" and [values(one, 1) for one in shown] == [[grey], [grey // 2]]
    assert "More unusual than" in text and f"**{grey / 10:.3f} bits/dim**" in text
    dark = picture.with_name("dark.png")
    Image.new("L", SHAPE[:2], 7).save(dark)
    said, shown = client.predict(handle_file(str(dark)), handle_file(str(picture)), False, api_name="/interpolate")
    assert said == "" and values(shown, 8) == pytest.approx([7 + (grey - 7) * step / 7 for step in range(8)], abs=1)
    said, compressed, shown = client.predict(handle_file(str(picture)), 0, api_name="/super_resolve")
    assert values(compressed, 1) == [grey] and values(shown, 4) == [grey + draw for draw in range(4)]


@pytest.mark.parametrize("asked", [Model(WITH_CLASSES, class_names=("7", "boot", "0"))])
def test_a_page_of_classes(client, picture):
    for chosen, expected in (("", [5]), ("boot", [1]), ("0", [2])):
        said, shown = client.predict(1, 1.0, 5, chosen, api_name="/sample")
        assert said == "" and values(shown, 1) == [value + 100 * (chosen == "") for value in expected]
    said, _, likely, text = client.predict(handle_file(str(picture)), api_name="/picture")
    assert said == "" and "More unusual than" in text and likely["label"] == "boot"
    assert {one["label"]: one["confidence"] for one in likely["confidences"]} == {"boot": 0.75, "7": 0.25, "0": 0.0}


@pytest.mark.parametrize("asked", [Model(GIVEN_A_CLASS, class_names=("7", "boot", "0"))])
def test_a_page_of_a_model_that_rebuilds_given_a_class(client, picture):
    grey = (299 * 200 + 587 * 100 + 114 * 50 + 500) // 1000
    dark = picture.with_name("dark.png")
    Image.new("L", SHAPE[:2], 7).save(dark)
    for chosen, number in (("", 1), ("7", 0), ("0", 2)):  # the likeliest is boot
        said, _, rebuilt, likely, text = client.predict(handle_file(str(picture)), chosen, api_name="/picture")
        assert said == "" and values(rebuilt, 1) == [grey // 2 + number] and likely["label"] == "boot" and "More unusual" in text
        ends = handle_file(str(dark)), handle_file(str(picture))
        said, shown = client.predict(*ends, False, chosen, api_name="/interpolate")
        assert said == "" and values(shown, 8)[::7] == pytest.approx([7 + number, grey + number], abs=1)


def test_what_cannot_be_used_is_one_line(client, picture):
    broken = picture.with_name("a_b<i>.png")
    broken.write_text("no picture")
    said, *others = client.predict(handle_file(str(broken)), api_name="/picture")
    told = r"\*\*\S+\.png: expected an image that can be prepared as the run's, 8x8 in grey .*, received no PNG,.*\*\*"
    assert re.fullmatch(told, said)
    assert others[:2] == [None, None] and not others[2] and "<i>" not in said.replace("\\<", "")
    said, shown = client.predict(handle_file(str(picture)), None, False, api_name="/interpolate")
    assert (said, shown) == ("Drag two pictures in.", None)


def test_no_file_is_read_that_was_not_uploaded_and_none_is_fetched(client, picture, monkeypatch):
    fetched = []

    async def fetch(url, *_, **__):
        fetched.append(url)
        return str(picture)

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    call = f"{client.src}gradio_api/call/picture"
    for path in (str(picture), "https://pictures.invalid/picture.png"):
        body = json.dumps({"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}).encode()
        request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{call}/{event}", timeout=60) as answer:
            text = answer.read().decode()
        assert "event: error" in text and "unusual" not in text and "Traceback" not in text
    assert fetched == []
    with pytest.raises(urllib.error.HTTPError, match="40[34]"):
        urllib.request.urlopen(f"{client.src}gradio_api/file={picture}", timeout=60)


@pytest.fixture(name="run", scope="module")
def fixture_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "tiny"
    tiny_models.make_workdir(folder, tiny_models.config(model="realnvp", flow_scales=1))
    return folder


@pytest.fixture(name="demo")
def fixture_demo(run, tmp_path):
    """A function that starts `tfcq demo`: (process, address)."""
    processes = []

    def begin():
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        flags = {"workdir": run, "port": 0, "num_held_out": 4, "num_importance_samples": 1}
        with open(tmp_path / "stdout", "w") as output, open(tmp_path / "stderr", "w") as errors:
            process = start(["env", f"TMPDIR={environment['TMPDIR']}", *command("demo", **flags)], stdout=output, stderr=errors)
        processes.append(process)
        end = time.monotonic() + 300
        while not (found := re.search(r"the page is at (http://\S+); Ctrl-C ends it", (tmp_path / "stdout").read_text())):
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "stderr").read_text()
            time.sleep(0.1)
        return process, found[1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def ended(process, number, folder):
    """Sends a signal; asserts that the process ends well, and leaves nothing."""
    process.send_signal(number)
    assert process.wait(60) == 0 and (folder / "stderr").read_text() == ""
    assert not list(folder.glob("tfcq-demo-*")) and not (folder / "gradio").exists()


@pytest.mark.slow
def test_the_command(demo, tmp_path, run):
    process, url = demo()
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=60) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self' ") and "http" not in policy
        assert "<title>tiny - tfcq</title>" in (text := answer.read().decode()) or '"title":"tiny - tfcq"' in text
    client = Client(url, download_files=str(tmp_path / "answers"), verbose=False)
    said, shown = client.predict(4, 1.0, 0, api_name="/sample")
    assert said == "" and pixels(shown).shape[1] >= 512
    ended(process, signal.SIGINT, tmp_path)
    assert len(list((run / "demo").glob("held_out-*/part-*.gz"))) == 1


@pytest.mark.slow
def test_in_chromium(demo, tmp_path, picture):
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    broken = picture.with_name("broken.png")
    broken.write_text("no picture")
    process, url = demo()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page()
        asked, failures = [], []
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda error: failures.append(str(error)))
        shown.on("requestfailed", lambda request: failures.append(request.url))
        shown.goto(url)
        shown.get_by_role("button", name="Draw").wait_for()
        shown.locator("img[src*='image.png']").first.wait_for(timeout=120_000)
        shown.get_by_role("tab", name="A picture of yours").click()
        shown.locator("#picture input[type=file]").set_input_files(pathlib.Path(picture))
        shown.get_by_text(re.compile(r"More unusual than .* of the 4 held-out images")).wait_for(timeout=120_000)
        assert shown.get_by_text("bits/dim: a file made with this model").count() == 1
        shown.locator("#picture button[aria-label*='emove'], #picture button[aria-label*='lear']").first.click()
        shown.locator("#picture input[type=file]").set_input_files(broken)
        shown.get_by_text("broken.png: expected a picture of 8 bits in grey or RGB").wait_for(timeout=120_000)
        assert shown.get_by_text("More unusual than").count() == 0 and shown.get_by_text("Traceback").count() == 0
        browser.close()
    foreign = [one for one in asked if not one.startswith((url, "data:", "blob:"))]
    assert asked and foreign == []
    assert not [one for one in failures if not one.startswith(f"{url}/gradio_api/")]  # streams end
    ended(process, signal.SIGTERM, tmp_path)
