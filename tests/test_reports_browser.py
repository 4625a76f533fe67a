"""The report in a real browser: it loads without errors or network, and the player does what its controls say."""

import io
import math

import numpy as np
import pytest
from browser import Browser, find_chromium

from structloss import reports, skeletons
from structloss.reports import ArmResult, PoseSamples, RunSummary

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine")

FRAMES = 60


def walking(name, *, fps=50.0, frames=FRAMES, seed=0):
    """A clip whose every frame differs, and two predictions of it."""
    body = skeletons.get("h36m")
    rng = np.random.default_rng(seed)
    rest = rng.normal(0, 300, (body.num_joints, 3)) - [0, 200, 0]
    swing = np.sin(np.linspace(0, 4 * math.pi, frames))[:, None, None] * rng.normal(0, 150, rest.shape)
    target = rest + swing
    predictions = {name: target + rng.normal(0, 40, rest.shape) for name in ("plain", "ranked")}
    predictions["ranked"][:, 5] = math.nan  # a joint that a network does not predict
    return PoseSamples(
        input=target[..., :2] / 1000,
        confidence=rng.uniform(0, 1, target.shape[:2]),
        target=target,
        predictions=predictions,
        labels=[f"frame {f}" for f in range(frames)],
        title=name,
        fps=fps,
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    steps = list(range(1, 51))
    arms = [
        ArmResult(
            name,
            objective={"mpjpe": 1.0},
            metrics={"mpjpe": 60.0 - k, "pa_mpjpe": 40.0, "n_mpjpe": 50.0, "mpjve": 25.0, "depth_order_joints": 0.8},
            clips={"mpjpe": {f"c{i}": 50.0 + i - k * (1 + 0.1 * i) for i in range(5)}},
            clips_per_second=100.0,
            curves={"step": steps, "train_loss": [1 / s for s in steps], "val_step": [25, 50], "val_mpjpe": [70, 60]},
            per_joint_mpjpe=[50.0 + j for j in range(17)],
            per_action={"walk": 50.0, "sit": 60.0},
            structure={"lse": 12.0, "bsle": 20.0, "symmetry/upper leg": 8.0},
            truth={"lse": 1.0, "symmetry/upper leg": 0.5},
            config="model:\n  backbone: tiny\n",
        )
        for k, name in enumerate(("plain", "ranked"))
    ]
    summary = RunSummary("Two runs", arms, settings={"command": "structloss report runs/a runs/b"})
    path = tmp_path_factory.mktemp("page") / "report.html"
    return reports.run_report(summary, path, [walking("first"), walking("second", frames=20, seed=1)])


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        browser.size(1200, 900)
        yield browser
    finally:
        browser.close()


@pytest.fixture
def shown(browser, page):
    """The page, freshly loaded at the size of a desktop."""
    browser.size(1200, 900)
    browser.problems.clear()
    browser.requests.clear()
    browser.open(page)
    yield browser
    assert browser.problems == [], "errors or warnings in the console"
    elsewhere = [url[:80] for url in browser.requests if not url.startswith(("file:", "data:image/png;base64,"))]
    assert elsewhere == [], "the page asked the network for something"
    assert sum(url.startswith("file:") for url in browser.requests) == 1, "the page is one file"


def pixels(browser, canvas="pose-canvas"):
    """What a canvas shows, as text."""
    return browser.run(f"document.getElementById('{canvas}').toDataURL()")


def label(browser):
    return browser.run("document.getElementById('pose-label').textContent")


def frame(browser):
    return int(browser.run("document.getElementById('pose-frame').value"))


def change(browser, control, value, event="change"):
    """Give a control a value, as a reader does."""
    script = "(name, value, event) => { const e = document.getElementById(name); e.value = value;"
    browser.run(f"({script} e.dispatchEvent(new Event(event)); }})('{control}', {value}, '{event}')")


def image(png):
    from matplotlib.image import imread

    return imread(io.BytesIO(png))[..., :3]


def test_page_shows_itself(shown):
    png = image(shown.screenshot(whole=True))
    assert 1150 < png.shape[1] <= 1200 and png.shape[0] > 2500
    assert len(np.unique((png[::5, ::5] * 255).astype(np.uint8).reshape(-1, 3), axis=0)) > 200
    blank = (png > 0.98).all(-1)
    assert 0.3 < blank.mean() < 0.97
    for canvas in ("pose-canvas", "pose-input", "pose-errors"):
        empty = f"""(() => {{ const c = document.getElementById('{canvas}');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            return d.filter((v, i) => i % 4 === 3 && v > 0).length / (c.width * c.height); }})()"""
        assert 0.002 < shown.run(empty) < 0.5, f"{canvas} has ink, and room"
    assert shown.run("document.title") == "Two runs"
    assert shown.run("[...document.images].every((i) => i.complete && i.naturalWidth > 500)")


def test_slider_moves_through_the_clip(shown):
    seen = {canvas: [pixels(shown, canvas)] for canvas in ("pose-canvas", "pose-input", "pose-errors")}
    assert label(shown).startswith("frame 0, 0.00 s: mean joint error plain ")
    shown.click("#pose-frame")  # its middle
    assert abs(frame(shown) - FRAMES // 2) <= 1
    for canvas, images in seen.items():
        images.append(pixels(shown, canvas))
        assert images[0] != images[1], canvas
    before = frame(shown)
    for _ in range(3):
        shown.key("ArrowRight")
    assert frame(shown) == before + 3
    assert label(shown).startswith(f"frame {before + 3}, {(before + 3) / 50:.2f} s")
    assert all(pixels(shown, canvas) != images[1] for canvas, images in seen.items())
    change(shown, "pose-frame", 0, "input")
    assert all(pixels(shown, canvas) == images[0] for canvas, images in seen.items()), "back to the first frame"


def test_play_runs_at_the_clip_speed_and_stops(shown):
    change(shown, "pose-speed", 0.25)
    shown.click("#pose-play")
    passed = """new Promise((done) => {
        const s = document.getElementById('pose-frame'), t = performance.now(), f = Number(s.value);
        const count = Number(s.max) + 1;
        setTimeout(() => done([(performance.now() - t) / 1000, (Number(s.value) - f + count) % count]), 1500);
    })"""
    for _ in range(3):  # a browser that has to wait for the processor skips frames
        seconds, frames = shown.run(passed)
        if abs(frames - seconds * 50 * 0.25) <= 4:
            break
    assert frames == pytest.approx(seconds * 50 * 0.25, abs=4)
    assert shown.run("document.getElementById('pose-play').textContent") == "Stop"
    shown.click("#pose-play")
    assert shown.run("document.getElementById('pose-play').textContent") == "Play"
    at = frame(shown)
    assert shown.run(passed)[1] == 0 and frame(shown) == at


def test_clips_are_chosen(shown):
    first = pixels(shown)
    assert shown.run("[...document.getElementById('pose-clip').options].map((o) => o.text)") == ["first", "second"]
    change(shown, "pose-clip", 1)
    assert shown.run("document.getElementById('pose-frame').max") == "19" and pixels(shown) != first
    change(shown, "pose-clip", 0)
    assert pixels(shown) == first


def test_poses_turn_and_hide(shown):
    x, y = shown.middle("#pose-canvas")
    whole = pixels(shown)
    shown.mouse("mousePressed", x, y, held=True)
    shown.mouse("mouseMoved", x + 60, y + 20, held=True)
    shown.mouse("mouseReleased", x + 60, y + 20)
    turned = pixels(shown)
    assert turned != whole, "dragging rotates"
    shown.mouse("mouseMoved", x, y)
    assert pixels(shown) == turned, "moving without a button does not"
    shown.click("button[data-view=front]")
    front = pixels(shown)
    assert front not in (whole, turned)
    shown.click("button[data-view=oblique]")
    assert pixels(shown) == whole
    shown.click("input[data-pose='1']")
    without = pixels(shown)
    assert without != whole
    shown.click("input[data-pose='1']")
    assert pixels(shown) == whole


def test_error_strip_seeks(shown):
    x, y = shown.middle("#pose-errors")
    shown.mouse("mousePressed", x, y, held=True)
    assert abs(frame(shown) - FRAMES // 2) <= 1
    shown.mouse("mouseMoved", x + 200, y, held=True)
    further = frame(shown)
    assert further > FRAMES // 2 + 5
    shown.mouse("mouseReleased", x + 200, y)
    shown.mouse("mouseMoved", x, y)
    assert frame(shown) == further


def test_configuration_opens(shown):
    height = "document.querySelector('details').getBoundingClientRect().height"
    closed = shown.run(height)
    shown.click("summary")
    assert shown.run(height) > closed + 40
    assert "backbone: tiny" in shown.run("document.querySelector('details pre').textContent")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1600, True)])
def test_narrow_and_dark(shown, width, dark):
    shown.size(width, 800, dark=dark)
    assert shown.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (
        "no sideways scroll"
    )
    background = image(shown.screenshot())[5, 5]
    assert (background < 0.2).all() if dark else (background > 0.95).all()
    shown.middle("#pose-canvas")
    for side in ("clientWidth", "clientHeight"):
        assert shown.run(f"document.getElementById('pose-canvas').{side}") > 250
    ink = "getComputedStyle(document.body).color.match(/\\d+/g).map(Number)"
    contrast = np.abs(np.array(shown.run(ink)) / 255 - background).mean()
    assert contrast > 0.6


@pytest.mark.parametrize("width", [400, 1300])
def test_nothing_is_cut_off(shown, width):
    """Only what stands in a box that scrolls may be wider than the page; the tables of two arms are not, nor charts."""
    shown.size(width, 900)
    outside = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll')
        && e.getBoundingClientRect().width && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"""
    assert shown.run(outside) == []
    boxes = """[...document.querySelectorAll('.scroll')].filter(e => !e.querySelector('img')
        && e.scrollWidth > e.clientWidth + 1).map(e => e.innerHTML)"""
    assert shown.run(boxes) == []
    figure = shown.run("document.querySelector('figure img').getBoundingClientRect().width")
    assert figure >= 600, "numbers in a figure can be read; on a phone it scrolls"
    words = """[...document.querySelectorAll('.wide td, .wide th')].filter(e => e.scrollWidth > e.clientWidth + 1)"""
    assert shown.run(f"{words}.map(e => e.outerHTML + e.scrollWidth + ' of ' + e.clientWidth)") == []


def test_print_leaves_the_player_out(shown):
    shown.call("Emulation.setEmulatedMedia", media="print")
    assert shown.run("document.querySelector('.viewer').getBoundingClientRect().height") == 0
    assert shown.run("document.querySelector('figure img').getBoundingClientRect().height") > 100
    shown.call("Emulation.setEmulatedMedia", media="screen")


def test_the_browser_reports_what_is_wrong(browser, tmp_path):
    """Errors and requests would not go unnoticed."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('no'); missing();</script>")
    browser.problems.clear()
    browser.requests.clear()
    browser.open(bad)
    assert any("missing" in problem for problem in browser.problems) and any("no" in p for p in browser.problems)
    assert "http://127.0.0.1:9/x.png" in browser.requests
