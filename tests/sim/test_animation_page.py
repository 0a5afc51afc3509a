"""The animation in a real browser: headless Chromium plays it, and the test looks at it.

Each test opens the page of `tests.sim.scenes` anew; after each, the browser's console is empty.
"""

import shutil
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from mat_files.ladder import LadderMessage
from mat_files.mobility import positions
from mat_files.scenario import load_scenario
from mat_sim.animation import Animation, Node, Scene, animate
from tests.sim.scenes import SCENE

PATIENCE = 60.0
"""Seconds that something may take on a loaded machine before a test gives up."""
MOTION = "prefers-reduced-motion"
SCHEME = "prefers-color-scheme"


@pytest.fixture(scope="module")
def browser() -> Generator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size=1200,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    started.set_script_timeout(PATIENCE)
    yield started
    started.quit()


class Page:
    """The page as a user has it: what is shown, buttons, keys, the bar of time."""

    def __init__(self, browser: webdriver.Chrome, folder: Path) -> None:
        self.browser = browser
        self._folder = folder

    def open(self, shown: Scene | Animation = SCENE, **media: str) -> None:
        """Open an animation, paused, with media features such as a dark theme."""
        features = {SCHEME: "light", MOTION: "reduce"} | {
            name.replace("_", "-"): value for name, value in media.items()
        }
        emulated = [{"name": name, "value": value} for name, value in features.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": emulated})
        path = self._folder / "animation.html"
        (Animation(shown) if isinstance(shown, Scene) else shown).write(path)
        self.browser.get(path.as_uri())

    @property
    def time(self) -> float:
        return float(self.text("time").removesuffix(" s"))

    def plays(self) -> bool:
        label = str(self.find("play").get_attribute("aria-label"))
        assert label in ("Play", "Pause")
        return label == "Pause"

    def find(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return str(self.find(name).text)

    def listed(self) -> list[str]:
        rows = self.browser.find_elements(By.CSS_SELECTOR, "#messages li")
        return [" ".join(row.text.split()) for row in rows]

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def press_with_shift(self, key: str) -> None:
        actions = webdriver.ActionChains(self.browser)
        actions.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()

    def scrub(self, time: float) -> None:
        self.browser.execute_script(
            "const bar = document.getElementById('scrub'); bar.value = arguments[0];"
            "bar.dispatchEvent(new Event('input', {bubbles: true}));",
            str(time),
        )

    def frames(self, count: int = 5) -> None:
        """Wait until the browser has drawn so many pictures."""
        self.browser.execute_async_script(
            "const [count, done] = arguments; let left = count;"
            "const next = () => (left-- > 0 ? requestAnimationFrame(next) : done()); next();",
            count,
        )

    def picture(self) -> str:
        return str(
            self.browser.execute_script("return document.getElementById('stage').toDataURL()")
        )

    def colours(self) -> int:
        """Different colours in the picture."""
        found = self.browser.execute_script(
            "const c = document.getElementById('stage');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return new Set(new Uint32Array(d.buffer)).size;"
        )
        return int(found)

    def node(self) -> tuple[float, float]:
        """Centre of the only node in the picture: of all that is as dark, only its disc is wide."""
        x, y = self.browser.execute_script(
            """
            const stage = document.getElementById("stage");
            const {width, height} = stage;
            const copy = Object.assign(document.createElement("canvas"), {width, height});
            const brush = copy.getContext("2d", {willReadFrequently: true});
            brush.drawImage(stage, 0, 0);
            const {data} = brush.getImageData(0, 0, width, height);
            const pixels = new Uint32Array(data.buffer);
            const hex = getComputedStyle(stage).getPropertyValue("--ink").trim();
            const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
            const ink = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
            const around = [0, -4, 4, -4 * width, 4 * width];
            const found = [...pixels.keys()].filter(
                (at) => around.every((step) => pixels[at + step] === ink));
            const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
            return [mean(found.map((at) => at % width)),
                mean(found.map((at) => Math.floor(at / width)))];
            """
        )
        return float(x), float(y)

    def wait(self, what: str, holds: Any) -> None:
        WebDriverWait(self.browser, PATIENCE, 0.05).until(lambda _: holds(), what)


@pytest.fixture
def page(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    yield Page(browser, tmp_path)
    log: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert log == []


def test_it_begins_to_play_by_itself_and_comes_to_an_end(page: Page) -> None:
    page.open(replace(SCENE, begin=2.39, end=2.41), prefers_reduced_motion="no-preference")
    page.wait("it did not come to the end", lambda: page.time == 2.41)
    page.wait("it did not stop", lambda: not page.plays())


def test_for_who_wants_no_motion_it_waits_to_be_played(page: Page) -> None:
    page.open()
    page.frames()
    assert (page.time, page.plays()) == (0.0, False)


def test_it_plays_and_can_be_paused(page: Page) -> None:
    page.open()
    page.find("play").click()
    page.wait("time stood still", lambda: page.time > 0.05)
    page.find("play").click()
    assert not page.plays()
    paused, picture = page.time, page.picture()
    page.frames()
    assert (page.time, page.picture()) == (paused, picture)


def test_played_at_the_end_it_begins_anew(page: Page) -> None:
    page.open()
    page.scrub(4.0)
    page.find("play").click()
    page.wait("it did not begin anew", lambda: 0 < page.time < 3)


def test_the_bar_goes_to_a_time_and_the_picture_is_that_time_s(page: Page) -> None:
    page.open()
    before = page.picture()
    page.scrub(2.405)
    assert page.time == 2.405
    assert page.find("scrub").get_attribute("aria-valuetext") == "2.4050 s"
    during = page.picture()
    assert during != before
    page.scrub(0)
    assert page.picture() == before
    page.scrub(2.405)
    assert page.picture() == during


def test_the_picture_has_many_colours_and_follows_the_theme(page: Page) -> None:
    page.open()
    page.scrub(2.405)
    light = page.picture()
    assert page.colours() > 50
    page.open(prefers_color_scheme="dark")
    page.scrub(2.405)
    assert page.colours() > 50
    assert page.picture() != light


def test_the_last_messages_are_listed_with_what_became_of_them(page: Page) -> None:
    page.open()
    page.scrub(2.41)
    assert page.listed() == [
        "2.4100 (1) IMS Update Reply IMS_MN → m1 under way",
        "2.4000 (1) IMS Update m1 → IMS_MN",
    ]
    page.scrub(2.44)
    assert page.listed()[:2] == [
        "2.4250 IMS? IMS_CN → DNS under way",
        "2.4200 (2) HA Notify m1 → IMS_CN lost",
    ]


def test_keys_play_pause_and_step_from_message_to_message(page: Page) -> None:
    page.open()
    page.press(Keys.SPACE)
    assert page.plays()
    page.press(Keys.SPACE)
    assert not page.plays()
    page.scrub(0)
    page.press(Keys.ARROW_RIGHT)
    assert page.time == 2.405
    assert page.text("said") == "(1) IMS Update, 10.0 ms, from m1 to IMS_MN"
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.text("said") == "(2) HA Notify, lost, from m1 to IMS_CN"
    page.press(Keys.ARROW_LEFT)
    assert page.time == 2.415
    page.press(Keys.END)
    assert page.time == 4.0
    page.press(Keys.ARROW_RIGHT)
    assert page.text("said") == "No message after this."
    page.press(Keys.HOME)
    assert page.time == 0.0


def test_keys_step_from_handover_to_handover_and_change_the_speed(page: Page) -> None:
    page.open()
    page.press_with_shift(Keys.ARROW_RIGHT)
    assert (page.time, page.text("said")) == (2.0, "Hard handover of m1.")
    page.press_with_shift(Keys.ARROW_LEFT)
    assert page.text("said") == "No handover before this."
    assert page.find("speed").get_attribute("value") == "1"
    page.press(Keys.ARROW_UP)
    assert page.find("speed").get_attribute("value") == "2"
    page.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert page.find("speed").get_attribute("value") == "0.5"


def test_a_key_that_a_control_in_the_focus_needs_is_its_own(page: Page) -> None:
    page.open()
    page.find("pacing").send_keys(Keys.SPACE)
    assert not page.plays()
    assert not page.find("pacing").is_selected()
    page.find("play").send_keys(Keys.SPACE)
    assert page.plays()


def test_time_passes_slowly_while_a_message_of_a_handover_is_under_way(page: Page) -> None:
    page.open()
    page.scrub(2.405)
    assert page.text("rate") == "1/100 of real time"
    page.scrub(1.0)
    assert page.text("rate") == "1.0 × real time"
    page.scrub(2.405)
    page.find("pacing").click()
    assert page.text("rate") == "1.0 × real time"


def test_a_node_can_be_followed_by_clicking_it(page: Page) -> None:
    other = Node("m2", (((0.0, 3.5, 0.5), (4.0, 3.5, 0.5)),))
    theirs = LadderMessage(1.0, 1.02, "m2", "IMS_MN", "IMS Update", "1")
    page.open(replace(SCENE, nodes=(*SCENE.nodes, other), messages=(theirs, *SCENE.messages)))
    page.scrub(2.9)
    assert any("m2 → IMS_MN" in row for row in page.listed())
    canvas = page.find("stage")
    width, height = canvas.size["width"], canvas.size["height"]
    # The map has x from -1 to 4 and y from -1 to 1, and is as wide as the canvas less its margin.
    scale = min((width - 34) / 5, ((height - 2) * 0.54 - 28) / 2)
    x = (3.3 - 1.5) * scale
    y = 0.46 * (height - 2) + ((height - 2) * 0.54 - 28) / 2 + 0.5 * scale - (height - 2) / 2
    actions = webdriver.ActionChains(page.browser)
    actions.move_to_element_with_offset(canvas, round(x), round(y)).click().perform()
    assert page.text("said") == "Following m1."
    assert page.find("follow").get_attribute("value") == "0"
    assert page.listed()
    assert not any("m2" in row for row in page.listed())


def test_every_control_has_a_name_and_what_has_the_focus_can_be_seen(page: Page) -> None:
    page.open()
    controls = page.browser.find_elements(By.CSS_SELECTOR, "button, select, input, canvas")
    assert len(controls) == 11
    assert all(control.accessible_name for control in controls)
    page.press(Keys.TAB)
    focused = page.browser.switch_to.active_element
    assert focused.value_of_css_property("outline-style") == "solid"


def test_names_are_text_whatever_they_contain(page: Page) -> None:
    evil = "</script><img src=x onerror=\"document.title='bad'\">"
    message = LadderMessage(1.0, 1.01, evil, "IMS_MN", evil, None)
    node = Node(evil, SCENE.nodes[0].path, SCENE.nodes[0].links)
    page.open(replace(SCENE, title=evil, nodes=(node,), messages=(message,), handovers=()))
    page.scrub(1.005)
    assert page.text("title") == evil
    assert page.listed() == [f"1.0000 {evil} {evil} → IMS_MN under way"]
    assert not page.browser.find_elements(By.TAG_NAME, "img")


def test_a_scene_of_nothing_plays(page: Page) -> None:
    page.open(Scene("empty", 0.0, 1.0, SCENE.networks, (), (), ()))
    page.find("play").click()
    page.wait("it did not come to the end", lambda: page.time == 1.0)


WALK = {
    "fcd": "<fcd-export>"
    + "".join(
        f'<timestep time="{t}"><vehicle id="m" x="{30 * t}" y="{15 * t}"/></timestep>'
        for t in range(21)
    )
    + "</fcd-export>",
    "ns2": '$node_(0) set X_ 0\n$node_(0) set Y_ 0\n$ns_ at 0 "$node_(0) setdest 600 300 33.5"\n',
    "bonnmotion": "0 0 0 20 600 300\n",
    "gpx": '<gpx><trk><trkseg><trkpt lat="50" lon="8"><time>2026-05-01T10:00:00Z</time></trkpt>'
    '<trkpt lat="50.003" lon="8.008"><time>2026-05-01T10:00:20Z</time></trkpt>'
    "</trkseg></trk></gpx>",
    "positions": "t,node,x,y\n" + "".join(f"{t},m,{30 * t},{15 * t}\n" for t in range(21)),
}
MODELS = {
    "random waypoint": "[movement.random_waypoint]\nsize = [600, 600]\nspeed = [20, 30]\n"
    "pause = [0, 1]\n",
    "train": "[movement.train]\nroute = [[0, 0], [500, 250]]\ndeparture = 2\nlength = 0\n",
}
NETWORK = '[traffic]\npairs = "none"\n[[network]]\nname = "A"\nx = 300.0\nrange = 900.0\n'


@pytest.mark.parametrize("source", [*WALK, *MODELS])
def test_a_node_is_drawn_where_its_movement_says_at_any_time(
    page: Page, tmp_path: Path, source: str
) -> None:
    if trace := WALK.get(source):
        (tmp_path / "trace").write_text(trace)
        movement = f'[movement]\ntrace = "trace"\nformat = "{source}"\n'
    else:
        movement = f"[nodes]\ncount = 1\n{MODELS[source]}"
    path = tmp_path / "walk.toml"
    head = 'format = 1\n[scenario]\nname = "walk"\nduration = 20\n'
    path.write_text(head + movement + NETWORK)
    trace_ = positions(load_scenario(path))
    assert trace_ is not None
    page.open(animate(path))
    seen = []
    for time in (4, 12):
        page.scrub(time)
        (x,), (y,) = trace_.x[trace_.time == time], trace_.y[trace_.time == time]
        seen.append((page.node(), (float(x), float(y))))
    ((x0, y0), (east0, north0)), ((x1, y1), (east1, north1)) = seen
    assert abs(x1 - x0) + abs(y1 - y0) > 20, "it hardly moves"
    # One scale for both directions, and north is upwards.
    scale = ((x1 - x0) + (y0 - y1)) / ((east1 - east0) + (north1 - north0))
    assert scale > 0.1
    assert x1 - x0 == pytest.approx(scale * (east1 - east0), abs=1.5)
    assert y0 - y1 == pytest.approx(scale * (north1 - north0), abs=1.5)
