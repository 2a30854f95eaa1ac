"""The report's page: every section of every kind of search, and the page in a real browser."""

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_store import made_up
from playwright.sync_api import Browser, ConsoleMessage, Page, Request

from cifar_tune.report.figures import MAX_DRAWN, Searched, costs, history, importances, slices, timeline
from cifar_tune.report.findings import Findings
from cifar_tune.report.page import render_page
from cifar_tune.report.sentences import told_cost
from cifar_tune.report.timing import (
    PAUSE_SECONDS,
    clock_seconds,
    describe_time,
    most_at_a_time,
    seconds_by_part,
    spans,
    without_pauses,
)
from cifar_tune.search.space import Draw, load_space
from cifar_tune.trials.facts import ENDED_AT, FIRST_EPOCH, QUEUED, STARTUP, TAKEN_AT, WORKER, with_facts
from cifar_tune.trials.goal import ACCURACY_ALONE, Goal, Limits
from cifar_tune.trials.trial import State, Trial, as_trial

SPACES = Path(__file__).parents[2] / "search_spaces"
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


def trials(states: Sequence[State], space: str = "mini_resnet", epochs: int = 10) -> list[Trial]:
    """The baseline, completed, and a made-up trial in each of the states, in a search that is called `made`."""
    loaded = load_space(SPACES / f"{space}.py", {"epochs": str(epochs)})
    first = loaded.baseline_trial(loaded.baselines[0])
    draws = [Draw(first.params, first.distributions, loaded.baselines[0]), *loaded.draw(len(states))]
    rng, found = random.Random(0), []
    for number, (drawn, state) in enumerate(zip(draws, ["completed", *states], strict=True)):
        frozen = made_up(drawn, number, epochs, rng, state)  # type: ignore[arg-type]
        frozen.number = number
        found.append(as_trial("made", frozen, number == 0, ACCURACY_ALONE))
    return found


MIXED: list[State] = ["completed", "pruned", "pruned", "diverged", "failed", "completed", "pruned"] * 12


def with_nan(found: list[Trial]) -> list[Trial]:
    """Every training loss is none."""
    return [
        replace(trial, curve=[{**epoch, "train_loss": float("nan"), "val_loss": float("nan")} for epoch in trial.curve])
        for trial in found
    ]


def of_one_parameter(found: list[Trial]) -> list[Trial]:
    name = "label_smoothing"
    return [replace(t, params={name: t.params[name]}, ranges={name: t.ranges[name]}) for t in found]


KINDS = {
    "no trial": lambda: [],
    "the baseline alone": lambda: trials([]),
    "a thousand trials": lambda: trials(MIXED * 12),
    "losses that are no numbers": lambda: with_nan(trials(MIXED)),
    "all pruned": lambda: trials(["pruned"] * 20)[1:],
    "all failed": lambda: trials(["failed"] * 20)[1:],
    "one parameter": lambda: of_one_parameter(trials(MIXED)),
    "conditional parameters": lambda: trials(MIXED, "all"),
    "of an older version": lambda: [replace(trial, facts={}) for trial in trials(MIXED)],
}


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
    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return [json.loads(text, parse_constant=no_constant) for text in found]


def test_pages_are_small_and_load_nothing() -> None:
    page = render_page(Findings({"made": trials(["completed", "pruned"] * 100, epochs=25)}))
    assert len(page.encode()) < 6e6
    own = page[: page.index("plotly.js v")]
    assert "http" not in own.replace("http-equiv", "")
    assert "default-src 'none'" in own


def test_the_time_is_told_by_its_parts() -> None:
    page = render_page(Findings({"made": trials(["completed"] * 5, epochs=4)}))
    # Of four workers two train one more trial of 8 s and 1.8 s besides, for which the others wait.
    said = "training 61.2 %, idle 25.0 %, start-up 7.7 %, queue 3.8 %, checkpoint 1.5 %, data 0.8 %"
    assert f"Of 78 s of all workers together: {said}." in page.replace("\u00a0", " ")
    assert "It took 24 epochs, 48 seconds of training and validation, as much as 6.0 runs of the baseline" in page
    assert "20 seconds on the clock, at most 4 trials at a time." in page


def test_the_pauses_of_a_search_are_no_part_of_its_time() -> None:
    paused = spanning(("a", 0, 10), ("b", 5, 10), ("c", 5000, 10))
    moved, pauses = without_pauses(spans(paused))
    assert [(span.worker, span.start) for span in moved] == [("a", 0), ("b", 5), ("c", 15)]
    assert [(pause.after, pause.seconds) for pause in pauses] == [(15, 4985)]
    assert clock_seconds(spans(paused)) == 25
    assert most_at_a_time(spans(paused)) == 2
    figure = timeline(Searched("made", paused))
    assert not isinstance(figure, str)
    assert [line.x0 for line in figure.layout.shapes] == [15]
    said = " Besides, nothing was recorded once, for 83 minutes: the search was interrupted, or a worker died."
    assert describe_time(spans(paused)).endswith(said)
    assert clock_seconds([]) == 0


def spanning(*spans_: tuple[str, float, float]) -> list[Trial]:
    """A trial for each (worker, start, seconds), all of it start-up."""
    (first,) = trials([])
    return [
        replace(first, number=i, curve=[], facts={WORKER: worker, TAKEN_AT: start, QUEUED: 0.0, STARTUP: seconds})
        for i, (worker, start, seconds) in enumerate(spans_)
    ]


def test_a_bar_of_the_timeline_tells_how_long_it_is() -> None:
    figure = timeline(Searched("made", spanning(("a", 0, 10), ("a", 20, 7))))
    assert not isinstance(figure, str)
    (bars,) = figure.data
    assert (list(bars.x), list(bars.base)) == ([10, 7], [0, 20])
    assert list(bars.text) == ["trial 0: start-up, 10.00 s", "trial 1: start-up, 7.00 s"]


def test_what_lies_over_a_limit_is_shown_as_such_and_is_never_the_best() -> None:
    goal = Goal(limits=Limits(num_parameters=250_000))
    found = [replace(trial, goal=goal) for trial in trials(["completed"] * 30)]
    searched = Searched("made", found)
    within = [trial for trial in found if trial.counts]
    assert 0 < len(within) < len(found)
    drawn = history(searched)
    assert not isinstance(drawn, str)
    assert max(drawn.data[1].y) == max(trial.val_accuracy or 0 for trial in within)
    figure = costs(searched)["num_parameters"]
    assert not isinstance(figure, str)
    shown = {trace.name: len(trace.x) for trace in figure.data}
    assert shown["trials"] + shown["over a limit"] + shown["baseline"] == len(found)
    assert [line.x0 for line in figure.layout.shapes] == [250_000]


def test_values_of_pruned_trials_and_choices_that_none_was_given_are_shown() -> None:
    found = [trial for trial in trials(["pruned"] * 20) if trial.params["optimizer/name"] != "sgd"]
    found += [t for t in trials(["completed"] * 6) if t.params["optimizer/name"] != "sgd"][1:]
    figure = slices(Searched("made", found))["optimizer/name"]
    assert not isinstance(figure, str)
    pruned, complete, baseline = figure.data
    assert len(pruned.x) == sum(trial.state == "pruned" for trial in found)
    assert set(complete.x) | set(baseline.x) == {"adam", "adamw"}
    assert list(figure.layout.xaxis.categoryarray) == ["adam", "adamw", "sgd"]
    assert list(figure.layout.xaxis.range) == [-0.5, 2.5]


def test_importances_tell_how_sure_they_are() -> None:
    assert "fewer than 20 tell nothing" in str(importances(Searched("made", trials(["completed"] * 18))))
    figure = importances(Searched("made", trials(["completed"] * 60)))
    assert not isinstance(figure, str)
    (bars,) = figure.data
    assert all("(n=" in name for name in bars.y)
    high = [share + above for share, above in zip(bars.x, bars.error_x.array, strict=True)]
    low = [share - below for share, below in zip(bars.x, bars.error_x.arrayminus, strict=True)]
    assert all(0 <= least <= share <= most <= 1 for least, share, most in zip(low, bars.x, high, strict=True))
    assert max(most - least for least, most in zip(low, high, strict=True)) > 0.1, "of sixty trials nothing is sure"
    same = [replace(trial, curve=trials([])[0].curve) for trial in trials(["completed"] * 30)]
    assert importances(Searched("made", same)) == "All complete trials have the same score."


def test_the_band_of_the_history_is_the_margin_around_the_baseline() -> None:
    found = trials(["completed"] * 5)
    figure = history(Searched("made", found))
    assert not isinstance(figure, str)
    score = found[0].val_accuracy or 0.0
    margin = 1.959964 * math.sqrt(2 * score * (1 - score) / 5000)
    band = figure.layout.shapes[0]
    assert (band.y0, band.y1) == pytest.approx((score - margin, score + margin))


def test_what_is_the_same_in_all_rows_is_told_once() -> None:
    found = trials(["completed", "failed"] * 4)
    same = [replace(trial, facts={**trial.facts, "num_parameters": 77_850}) for trial in found]
    page = render_page(Findings({"made": same}))
    assert "The same in all rows: search made, mini_resnet, 77,850 parameters, 31.0 M multiply-adds." in page
    bare = [replace(trial, facts={}) if trial.state == "failed" else trial for trial in same]
    assert "The same in all rows: search made, mini_resnet." in render_page(Findings({"made": bare}))


def test_a_resumed_trial_has_the_times_of_every_worker_that_had_it() -> None:
    (first,) = trials([], epochs=5)
    mine = {WORKER: "a", TAKEN_AT: 100.0, QUEUED: 0.0, STARTUP: 2.0, FIRST_EPOCH: 0}
    known = with_facts(with_facts({}, mine), mine)
    assert known == mine
    for worker, start, first_epoch in (("b", 500.0, 2), ("c", 900.0, 3)):
        known = with_facts(known, {**mine, WORKER: worker, TAKEN_AT: start, FIRST_EPOCH: first_epoch})
    found = spans([replace(first, facts=known)])
    assert [(span.worker, span.start, span.part, span.seconds) for span in found] == [
        ("a", 100, "start-up", 2),
        ("a", 102, "training", 4),
        ("b", 500, "start-up", 2),
        ("b", 502, "training", 2),
        ("c", 900, "start-up", 2),
        ("c", 902, "training", 4),
    ]


def test_who_takes_over_from_a_worker_that_died_was_not_queued_since_the_first_began() -> None:
    """Ray hands it the trial as it handed it to the first."""
    (first,) = trials([], epochs=5)
    known = {WORKER: "a", TAKEN_AT: 100.0, QUEUED: 1.0, STARTUP: 2.0, FIRST_EPOCH: 0}
    known = with_facts(known, {**known, WORKER: "b", TAKEN_AT: 115.0, QUEUED: 16.0, FIRST_EPOCH: 5})
    queued = [(span.worker, span.seconds) for span in spans([replace(first, facts=known)]) if span.part == "queue"]
    assert queued == [("a", 1), ("b", 3)], "the first one was at work until 112"


def test_a_clock_that_not_all_trials_have_is_not_told() -> None:
    found = trials(["completed"] * 5)
    assert "on the clock" in told_cost(found)
    older = {name: value for name, value in found[2].facts.items() if name != TAKEN_AT}
    assert "on the clock" not in told_cost([*found[:2], replace(found[2], facts=older), *found[3:]])


def test_a_worker_that_was_replaced_is_not_idle_afterwards() -> None:
    replaced = spanning(("a", 0, 10), ("b", 0, 20), ("c", 30, 100))  # b waits for a to end, and is replaced
    assert seconds_by_part(spans(replaced))["idle"] == 0
    waiting = spanning(("a", 0, 10), ("b", 0, 40))
    assert seconds_by_part(spans(waiting))["idle"] == 30


def test_the_epoch_in_which_a_trial_broke_down_is_training() -> None:
    (broken,) = spanning(("a", 0, 2))
    broken = replace(broken, facts={**broken.facts, ENDED_AT: 100.0})
    assert seconds_by_part(spans([broken]))["training"] == 98


def test_points_tell_the_trial_that_they_are(written: Path) -> None:
    """Of a choice too, whose values have an order of their own."""
    found = {f"trial {t.number}" + (" (baseline)" if t.is_baseline else ""): t for t in trials(MIXED)}
    drawn = [
        each for each in figures(written.read_text(encoding="utf-8")) if "title" in each["layout"].get("xaxis", {})
    ]
    by_title = {each["layout"]["xaxis"]["title"]["text"]: each for each in drawn}
    assert len(by_title["batch_size"]["data"]) == 3, "pruned, complete, baseline"
    for name in ("batch_size", "label_smoothing", "optimizer/name"):
        for trace in by_title[name]["data"]:
            for x, label in zip(trace["x"], trace["text"], strict=True):
                assert str(found[label].params[name]) == str(x)


def test_many_trials_are_drawn_in_part_and_counted_in_whole() -> None:
    page = render_page(Findings({"made": trials(["completed", "pruned", "pruned"] * 400)}))
    assert "The figures show 1,000 of 1,201 trials" in page
    assert "The best 1,000 of 1,201 trials; report --format csv has all." in page
    assert "Pruning stopped 800 of 1,201 trials" in page


def test_there_is_no_pause_between_trials_that_are_not_drawn() -> None:
    searched = Searched("made", spanning(*(("a", 60.0 * number, 60.0) for number in range(8 * MAX_DRAWN))))
    figure = timeline(searched)
    assert not isinstance(figure, str)
    assert max(np.diff(sorted(figure.data[0].base))) > PAUSE_SECONDS
    assert len(figure.layout.shapes) == 0


def test_what_a_space_calls_its_values_cannot_break_the_page() -> None:
    name = "</script><b>x"
    found = [replace(t, params={name: float(t.number)}, ranges={}) for t in trials(MIXED)]
    page = render_page(Findings({"made": [replace(t, ranges={name: a_range(t)}) for t in found]}))
    assert "<b>x" not in page
    assert len(figures(page)) > 3


def a_range(trial: Trial) -> Any:  # noqa: ANN401 - Optuna's
    from optuna.distributions import FloatDistribution

    return FloatDistribution(0.0, 1000.0)


# In a browser


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(Findings({"made": trials(MIXED)})), encoding="utf-8")
    return path


def opened(browser: Browser, path: Path, width: int, scheme: Any = "light") -> tuple[Page, list[str]]:  # noqa: ANN401
    """The page, scrolled through, and what went wrong meanwhile."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []

    def note_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    def note_request(request: Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            wrong.append(f"asked the network for {request.url}")

    page.on("console", note_message)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", note_request)
    page.goto(path.as_uri())
    for figure in page.locator(".figure").all():
        figure.scroll_into_view_if_needed()
        figure.locator(".main-svg").first.wait_for()
    return page, wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_browser_draws_every_figure_without_an_error(
    browser: Browser, written: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    page, wrong = opened(browser, written, width, scheme)
    assert wrong == []
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


def test_the_leaderboard_is_sorted_and_filtered_by_mouse_and_keyboard(browser: Browser, written: Path) -> None:
    page, wrong = opened(browser, written, WIDTHS["desktop"])
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
    known = [float(gain) for gain in gains if gain != "-"]
    assert known == sorted(known)
    assert gains[len(known) :] == ["-"] * (len(gains) - len(known)), "what has no gain comes last"

    board.get_by_label("State").select_option("pruned")
    assert {row["state"] for row in shown(page)} == {"pruned"}
    assert board.locator("output").text_content() == f"{MIXED.count('pruned')} rows"
    board.get_by_label("State").select_option("")
    board.get_by_label("Filter").fill("COSINE adam")
    found = shown(page)
    assert found
    assert all(row["schedule"] == "cosine" and "adam" in row["optimizer"] for row in found)
    board.get_by_label("Filter").fill("no such words")
    assert shown(page) == []
    assert wrong == []
    page.close()


def shown(page: Page) -> list[Mapping[str, str]]:
    """The visible rows of the first leaderboard."""
    found: list[Mapping[str, str]] = page.evaluate(
        """() => {
            const table = document.querySelector(".board table");
            const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
            return [...table.tBodies[0].rows]
                .filter((row) => !row.hidden)
                .map((row) => Object.fromEntries([...row.cells].map((cell, i) => [names[i], cell.textContent])));
        }"""
    )
    return found


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


def test_a_printed_page_is_as_wide_as_paper(browser: Browser, written: Path) -> None:
    page, wrong = opened(browser, written, WIDTHS["desktop"])
    widest = "Math.max(...[...document.querySelectorAll('.main-svg')].map((each) => each.clientWidth))"
    assert page.evaluate(widest) > 1000
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(f"{widest} <= 700")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"{widest} > 1000")
    assert wrong == []
    page.close()


def test_a_point_tells_its_trial(browser: Browser, written: Path) -> None:
    page, wrong = opened(browser, written, WIDTHS["desktop"])
    figure = page.get_by_label("Learning curves")
    figure.scroll_into_view_if_needed()
    box = figure.locator("path.point").last.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = figure.locator(".hoverlayer .hovertext").first
    told.wait_for()
    assert re.search(r"trial \d+.*pruned after epoch \d+ at \d+\.\d\d%", str(told.text_content()))
    assert wrong == []
    page.close()
