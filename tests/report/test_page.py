"""The report's page: every section of every kind of search, and the page in a real browser."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.made_trials import made_up_trials
from optuna.distributions import FloatDistribution
from playwright.sync_api import Browser, ConsoleMessage, Page, Request

from cifar_tune.report.findings import Findings
from cifar_tune.report.page import render_page
from cifar_tune.report.sentences import describe_cost
from cifar_tune.trials.trial import State, Trial

SECTIONS = (
    "Learning curves",
    "History of the best",
    "Which values go with the score",
    "Scores over each value",
    "Parallel coordinates",
    "Accuracy and cost",
    "What pruning saved and risked",
    "Where the time went",
)
WIDTHS = {"desktop": 1280, "phone": 390}


MIXED: list[State] = ["completed", "pruned", "pruned", "diverged", "failed", "completed", "pruned"] * 12


def with_nan(trials: list[Trial]) -> list[Trial]:
    """Every loss is NaN."""
    return [
        replace(trial, curve=[{**epoch, "train_loss": float("nan"), "val_loss": float("nan")} for epoch in trial.curve])
        for trial in trials
    ]


def of_one_parameter(trials: list[Trial]) -> list[Trial]:
    name = "label_smoothing"
    return [replace(t, params={name: t.params[name]}, ranges={name: t.ranges[name]}) for t in trials]


KINDS: dict[str, Callable[[], list[Trial]]] = {
    "no trial": lambda: [],
    "the baseline alone": lambda: made_up_trials([]),
    "a thousand trials": lambda: made_up_trials(MIXED * 12),
    "losses that are no numbers": lambda: with_nan(made_up_trials(MIXED)),
    "all pruned": lambda: made_up_trials(["pruned"] * 20)[1:],
    "all failed": lambda: made_up_trials(["failed"] * 20)[1:],
    "one parameter": lambda: of_one_parameter(made_up_trials(MIXED)),
    "conditional parameters": lambda: made_up_trials(MIXED, "all"),
    "of an older version": lambda: [replace(trial, facts={}) for trial in made_up_trials(MIXED)],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_section_is_drawn_or_says_why_not(kind: str) -> None:
    page = render_page(Findings({"made": KINDS[kind]()}))
    for section in SECTIONS:
        (body,) = re.findall(f"<h3>{section}</h3>(.*?)(?:<h3>|</main>)", page, re.DOTALL)
        words = re.sub(r"<script.*?</script>|<[^>]*>", "", body, flags=re.DOTALL).strip()
        assert "<figure" in body or words.endswith("."), f"{section} is empty"
    for document in figures(page):
        assert document["data"]
        assert "template" not in document["layout"]


def figures(page: str) -> list[dict[str, Any]]:
    """The figures of a page, which must be strict JSON."""

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    texts = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return [json.loads(text, parse_constant=no_constant) for text in texts]


def test_pages_are_small_and_load_nothing() -> None:
    page = render_page(Findings({"made": made_up_trials(["completed", "pruned"] * 100, epochs=25)}))
    assert len(page.encode()) < 6e6
    own = page[: page.index("plotly.js v")]
    assert "http" not in own.replace("http-equiv", "")
    assert "default-src 'none'" in own


def test_the_page_shows_where_the_time_went() -> None:
    trials = made_up_trials(["completed"] * 5, epochs=4)
    page = render_page(Findings({"made": trials}))
    # Of four workers two train one more trial of 8 s and 1.8 s besides, for which the others wait.
    shares = "training 61.2 %, idle 25.0 %, start-up 7.7 %, queue 3.8 %, checkpoint 1.5 %, data 0.8 %"
    assert f"Of 78 s of worker time: {shares}." in page.replace("\u00a0", " ")
    assert describe_cost(trials) in page


def test_what_is_the_same_in_all_rows_is_stated_once() -> None:
    trials = made_up_trials(["completed", "failed"] * 4)
    same = [replace(trial, facts={**trial.facts, "num_parameters": 77_850}) for trial in trials]
    page = render_page(Findings({"made": same}))
    assert "The same in all rows: search made, mini_resnet, 77,850 parameters, 31.0 M multiply-adds." in page
    bare = [replace(trial, facts={}) if trial.state == "failed" else trial for trial in same]
    assert "The same in all rows: search made, mini_resnet." in render_page(Findings({"made": bare}))


def test_points_are_labelled_with_their_trial(written: Path) -> None:
    """Points of choices are too, whose values have an order of their own."""
    by_label = {f"trial {t.number}" + (" (baseline)" if t.is_baseline else ""): t for t in made_up_trials(MIXED)}
    drawn = [
        each for each in figures(written.read_text(encoding="utf-8")) if "title" in each["layout"].get("xaxis", {})
    ]
    by_title = {each["layout"]["xaxis"]["title"]["text"]: each for each in drawn}
    assert len(by_title["batch_size"]["data"]) == 3, "pruned, complete, baseline"
    for name in ("batch_size", "label_smoothing", "optimizer/name"):
        for trace in by_title[name]["data"]:
            for x, label in zip(trace["x"], trace["text"], strict=True):
                assert str(by_label[label].params[name]) == str(x)


@pytest.mark.slow
def test_many_trials_are_drawn_in_part_and_counted_in_whole() -> None:
    page = render_page(Findings({"made": made_up_trials(["completed", "pruned", "pruned"] * 400)}))
    assert "The figures show 1,000 of 1,201 trials" in page
    assert "The best 1,000 of 1,201 trials; <code>report --format csv</code> has all." in page
    assert "Pruning stopped 800 of 1,201 trials" in page


def test_the_name_of_a_searched_value_cannot_break_the_page() -> None:
    name = "</script><b>x"
    trials = [
        replace(trial, params={name: float(trial.number)}, ranges={name: FloatDistribution(0.0, 1000.0)})
        for trial in made_up_trials(MIXED)
    ]
    page = render_page(Findings({"made": trials}))
    assert "<b>x" not in page
    assert len(figures(page)) > 3


# In a browser


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(Findings({"made": made_up_trials(MIXED)})), encoding="utf-8")
    return path


def opened(browser: Browser, path: Path, width: int, scheme: Any = "light") -> tuple[Page, list[str]]:  # noqa: ANN401
    """The page, scrolled through, and the errors, warnings and requests meanwhile."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems: list[str] = []

    def note_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            problems.append(message.text)

    def note_request(request: Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            problems.append(f"requested {request.url}")

    page.on("console", note_message)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", note_request)
    page.goto(path.as_uri())
    for figure in page.locator(".figure").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for()
    return page, problems


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_browser_draws_every_figure_without_an_error(
    browser: Browser, written: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    page, problems = opened(browser, written, width, scheme)
    assert problems == []
    assert page.locator(".figure").count() >= 15
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the screen"
    colors = page.evaluate(COLORS)
    assert contrast(*colors["body"]) > 7
    assert contrast(*colors["quiet"]) > 4.5
    assert contrast(colors["tick"], colors["body"][1]) > 4.5
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    page.close()


COLORS = """() => {
    const paper = getComputedStyle(document.body).backgroundColor;
    const ink = (selector) => getComputedStyle(document.querySelector(selector)).color;
    return {
        body: [ink("body"), paper],
        quiet: [ink(".quiet"), paper],
        tick: getComputedStyle(document.querySelector(".xtick text")).fill,
    };
}"""


def contrast(first: str, second: str) -> float:
    """WCAG's ratio of two colours."""
    lights = sorted(luminance([int(part) for part in re.findall(r"\d+", color)[:3]]) for color in (first, second))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(color: Sequence[int]) -> float:
    linear = [c / 12.92 if (c := part / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for part in color]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.slow
def test_the_leaderboard_is_sorted_and_filtered_by_mouse_and_keyboard(browser: Browser, written: Path) -> None:
    page, problems = opened(browser, written, WIDTHS["desktop"])
    board = page.locator(".board").first
    header = board.get_by_role("columnheader", name="trial", exact=True)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    numbers = [int(row["trial"].replace(",", "")) for row in shown(page)]
    assert numbers == sorted(numbers)
    assert len(numbers) == len(MIXED) + 1
    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert [int(row["trial"]) for row in shown(page)] == numbers[::-1]

    board.get_by_role("columnheader", name="gain", exact=True).get_by_role("button").click()
    gains = [row["gain"] for row in shown(page)]
    numeric = [float(gain) for gain in gains if gain != "-"]
    assert numeric == sorted(numeric)
    assert gains[len(numeric) :] == ["-"] * (len(gains) - len(numeric)), "rows without a gain come last"

    board.get_by_label("State").select_option("pruned")
    assert {row["state"] for row in shown(page)} == {"pruned"}
    assert board.locator("output").text_content() == f"{MIXED.count('pruned')} rows"
    board.get_by_label("State").select_option("")
    board.get_by_label("Filter").fill("COSINE adam")
    rows = shown(page)
    assert rows
    assert all(row["schedule"] == "cosine" and "adam" in row["optimizer"] for row in rows)
    board.get_by_label("Filter").fill("no such words")
    assert shown(page) == []
    assert problems == []
    page.close()


def shown(page: Page) -> list[Mapping[str, str]]:
    """The visible rows of the first leaderboard."""
    rows: list[Mapping[str, str]] = page.evaluate(
        """() => {
            const table = document.querySelector(".board table");
            const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
            return [...table.tBodies[0].rows]
                .filter((row) => !row.hidden)
                .map((row) => Object.fromEntries([...row.cells].map((cell, i) => [names[i], cell.textContent])));
        }"""
    )
    return rows


@pytest.mark.slow
def test_links_lead_to_their_sections_where_the_page_is_shown_inside_another(browser: Browser, written: Path) -> None:
    """As MLflow shows it: in a frame without an address of its own."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.evaluate(
        """(html) => {
            const frame = document.createElement("iframe");
            frame.sandbox = "allow-scripts";
            frame.style = "width: 1200px; height: 800px";
            frame.src = URL.createObjectURL(new Blob([html], { type: "text/html" }));
            document.body.append(frame);
        }""",
        written.read_text(encoding="utf-8"),
    )
    frame = page.frame_locator("iframe")
    heading = frame.get_by_role("heading", name="The five published projects")
    heading.wait_for()
    before = heading.bounding_box()
    frame.get_by_role("link", name="The five published projects").click()
    after = heading.bounding_box()
    assert before is not None
    assert after is not None
    assert after["y"] < 100 < before["y"]
    page.close()


@pytest.mark.slow
def test_a_printed_page_is_as_wide_as_paper(browser: Browser, written: Path) -> None:
    page, problems = opened(browser, written, WIDTHS["desktop"])
    widest = "Math.max(...[...document.querySelectorAll('.main-svg')].map((each) => each.clientWidth))"
    assert page.evaluate(widest) > 1000
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(f"{widest} <= 700")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"{widest} > 1000")
    assert problems == []
    page.close()


@pytest.mark.slow
def test_a_point_shows_its_trial(browser: Browser, written: Path) -> None:
    page, problems = opened(browser, written, WIDTHS["desktop"])
    figure = page.get_by_label("Learning curves")
    figure.scroll_into_view_if_needed()
    box = figure.locator("path.point").last.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    label = figure.locator(".hoverlayer .hovertext").first
    label.wait_for()
    assert re.search(r"trial \d+.*pruned after epoch \d+ at \d+\.\d\d%", str(label.text_content()))
    assert problems == []
    page.close()
