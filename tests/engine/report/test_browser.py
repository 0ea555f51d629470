"""The report in a real browser: no errors, no requests, and everything works by keyboard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swin_dense.engine.report.compare import compare_runs
from swin_dense.engine.report.runs import read_run
from swin_dense.engine.report.write import write_report
from tests.engine.report.saved import sample, save_detection, save_segmentation

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _missing(what: str) -> None:
    message = f"no {what}, which the report's browser tests need; `make browser` installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        _missing("Chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page that keeps what went wrong and every address it asked for."""

    def __init__(self, browser: Any, path: Path, *, phone: bool = False, dark: bool = False):
        size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 900}
        self.context = browser.new_context(
            viewport=size, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", lambda request: self.wrong.append(request.url))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.resolve().as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, kind: object, *unused: object) -> None:
        if kind is None:
            assert self.wrong == []
            assert [url for url in self.asked if not url.startswith(("file:", "data:"))] == []
        self.context.close()

    def focused(self) -> str:
        return self.page.evaluate("document.activeElement.getAttribute('aria-label') || ''")

    def cards(self) -> Any:
        return self.page.locator("[data-gallery] .card")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("report")
    data = sample(root / "data", 30)
    detector = save_detection(data, root / "detector")
    segmenter = save_segmentation(data, root / "segmenter")
    better = save_detection(data, root / "better", skill=0.95, seed=1)
    return {
        "detection": write_report(detector, previous={"coco/bbox_mAP": 0.1}),
        "segmentation": write_report(segmenter),
        "comparison": compare_runs(detector, better, root / "compare.html", resamples=50)[0],
    }


@pytest.mark.parametrize("name", ["detection", "segmentation", "comparison"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_every_page_opens_without_an_error_a_request_or_sideways_scrolling(
    chromium: Any, pages: dict[str, Path], name: str, phone: bool
) -> None:
    with Visit(chromium, pages[name], phone=phone, dark=phone) as visit:
        assert visit.page.locator("h1").inner_text() != ""
        assert visit.page.locator("section").count() >= 3
        first = visit.cards().first
        first.scroll_into_view_if_needed()
        widths = visit.page.evaluate(
            """async () => {
              const images = [...document.querySelectorAll("[data-gallery] .card img")].slice(0, 2);
              await Promise.all(images.map((image) => image.decode()));
              return images.map((image) => image.naturalWidth);
            }"""
        )
        assert widths == [160, 160]
        width, shown = visit.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert width <= shown
        assert visit.page.evaluate("document.documentElement.dataset.theme") == (
            "dark" if phone else "light"
        )


def test_a_table_sorts_by_its_heads_and_says_so(chromium: Any, pages: dict[str, Path]) -> None:
    with Visit(chromium, pages["detection"]) as visit:
        table = visit.page.locator("#classes table")
        head = table.locator("thead th", has_text="Objects")

        def column() -> list[int]:
            return [int(text) for text in table.locator("tbody td:nth-child(2)").all_inner_texts()]

        assert table.locator("th[aria-sort]").inner_text() == "AP"
        before = column()
        head.get_by_role("button").focus()
        visit.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert column() == sorted(before, reverse=True)
        visit.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert column() == sorted(before)
        table.get_by_role("button", name="Class").click()
        names = table.locator("tbody th").all_inner_texts()
        assert names == sorted(names)


def test_the_gallery_filters_by_class_kind_and_score(chromium: Any, pages: dict[str, Path]) -> None:
    with Visit(chromium, pages["detection"]) as visit:
        data = json.loads(visit.page.locator("#data").text_content() or "")
        images = data["gallery"]["images"]
        kinds = data["gallery"]["kinds"]

        def expected(label: int, kind: int, least: float) -> int:
            return sum(
                any(
                    marks[at] == label and marks[at + 2] == kind and marks[at + 1] >= 1000 * least
                    for at in range(0, len(marks), 8)
                )
                for marks in (image["r"][0]["d"] for image in images)
            )

        section = visit.page.locator("#pictures")
        status = section.locator("p.readout")
        assert status.inner_text() == f"{len(images)} pictures"
        section.locator("select").nth(0).select_option(label=data["classes"][1])
        section.locator("select").nth(1).select_option(label="localisation")
        least = data["gallery"]["least"]
        wanted = expected(1, kinds.index("localisation"), least)
        assert 0 < wanted < len(images)
        assert status.inner_text().startswith(f"{wanted} picture")
        section.locator("input[type=range]").fill("0.9")
        wanted = expected(1, kinds.index("localisation"), 0.9)
        assert status.inner_text().startswith(f"{wanted} picture")
        section.get_by_label("File").fill("no such name")
        assert section.get_by_text("No picture fits these filters.").is_visible()


def test_a_picture_opens_moves_and_closes_by_keyboard_and_gives_the_focus_back(
    chromium: Any, pages: dict[str, Path]
) -> None:
    with Visit(chromium, pages["detection"]) as visit:
        dialog = visit.page.locator("#viewer")
        card = visit.cards().nth(1)
        card.focus()
        opener = visit.focused()
        visit.page.keyboard.press("Enter")
        assert dialog.is_visible()
        title = dialog.locator("h2").inner_text()
        assert "2 of 30" in title
        assert opener.startswith(title.split(".jpg")[0])
        assert dialog.locator("figcaption").all_inner_texts() == ["Annotated", "Predicted"]
        dialog.locator("polygon").first.wait_for(state="attached")  # from the file beside the page
        visit.page.keyboard.press("ArrowRight")
        assert "3 of 30" in dialog.locator("h2").inner_text()
        visit.page.keyboard.press("ArrowLeft")
        visit.page.keyboard.press("ArrowLeft")
        visit.page.keyboard.press("ArrowLeft")  # already at the first
        assert "1 of 30" in dialog.locator("h2").inner_text()
        visit.page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert visit.focused() == opener


def test_the_classes_under_the_pointer_stand_over_every_map(
    chromium: Any, pages: dict[str, Path]
) -> None:
    with Visit(chromium, pages["segmentation"]) as visit:
        data = json.loads(visit.page.locator("#data").text_content() or "")
        run = read_run(pages["segmentation"].parent)
        worst = min(data["gallery"]["images"], key=lambda image: image["r"][0]["q"])
        image = next(one for one in run.images if one.file == worst["n"])
        truth, found = run.label_maps(image)
        inside = np.argwhere(truth != found)  # a place where the two differ
        y, x = inside[len(inside) // 2]
        visit.cards().first.click()
        stage = visit.page.locator("#viewer .stage")
        stage.locator(".dot").first.wait_for(state="attached")
        place = stage.locator(".frame").first.bounding_box()
        assert place is not None
        scale = place["width"] / truth.shape[1]
        visit.page.mouse.move(place["x"] + (x + 0.5) * scale, place["y"] + (y + 0.5) * scale)
        captions = stage.locator("figcaption").all_inner_texts()
        near = np.s_[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]  # the maps beside are coarse
        names = data["classes"]
        assert captions[0] in {f"Annotated: {names[k]}" for k in np.unique(truth[near]) if k < 255}
        assert captions[1] in {f"Predicted: {names[k]}" for k in np.unique(found[near])}
        assert captions[2] == "Wrong pixels"
        visit.page.mouse.move(5, 5)
        assert stage.locator("figcaption").first.inner_text() == "Annotated"


def test_the_charts_tell_their_values_to_the_arrow_keys(
    chromium: Any, pages: dict[str, Path]
) -> None:
    with Visit(chromium, pages["detection"]) as visit:
        data = json.loads(visit.page.locator("#data").text_content() or "")
        panel = visit.page.locator("#curves .panel").first
        panel.locator("svg").focus()
        visit.page.keyboard.press("Home")
        for _ in range(3):
            visit.page.keyboard.press("ArrowRight")
        value = data["views"][0]["curves"]["all"][3]
        assert f"recall 0.03 · all classes {value:.3f}" in panel.locator(".readout").inner_text()
        panel.get_by_label("Add a class").select_option(label=data["classes"][0])
        assert panel.locator("svg path").count() == 3


def test_one_cell_of_the_matrix_is_in_the_tab_order_and_the_arrows_move_it(
    chromium: Any, pages: dict[str, Path]
) -> None:
    with Visit(chromium, pages["segmentation"]) as visit:
        cells = visit.page.locator("#confusion .heat tbody td")
        assert visit.page.locator("#confusion .heat td[tabindex='0']").count() == 1
        cells.first.focus()
        visit.page.keyboard.press("ArrowRight")
        assert visit.focused().startswith("annotated sand, predicted water: ")
        visit.page.keyboard.press("ArrowDown")
        assert visit.focused().startswith("annotated water, predicted water: ")


def test_the_theme_follows_the_system_and_the_button_overrides_it(
    chromium: Any, pages: dict[str, Path]
) -> None:
    with Visit(chromium, pages["detection"], dark=True) as visit:
        ground = "getComputedStyle(document.body).backgroundColor"
        assert visit.page.evaluate(ground) == "rgb(15, 16, 19)"
        visit.page.locator("#theme").click()
        assert visit.page.locator("#theme").inner_text() == "Theme: light"
        assert visit.page.evaluate(ground) == "rgb(247, 247, 248)"


def test_boxes_and_masks_have_figures_of_their_own(chromium: Any, pages: dict[str, Path]) -> None:
    with Visit(chromium, pages["detection"]) as visit:
        table = visit.page.locator("#classes table tbody")
        boxes = table.inner_text()
        visit.page.locator("#classes").get_by_role("button", name="Masks").click()
        masks = visit.page.locator("#classes table tbody").inner_text()
        assert boxes != masks


def big_run(work_dir: Path, images: int = 5000) -> Path:
    """Write predictions for many pictures that are not there: 7 objects and 30 detections each."""
    rng = np.random.default_rng(0)
    entries = [dict(id=i, file=f"{i:012d}.jpg", height=480, width=640) for i in range(images)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    boxes = np.round(rng.random((images, 30, 4)) * [480, 340, 140, 120] + [0, 0, 15, 15], 1)
    labels, scores = rng.integers(0, 80, (images, 30)), np.round(rng.beta(1, 3, (images, 30)), 3)
    for i in range(images):
        for n in range(30):
            one = dict(image_id=i, category_id=int(labels[i, n]) + 1, bbox=boxes[i, n].tolist())
            if n < 7:
                annotations.append(one | dict(id=len(annotations) + 1, iscrowd=0))
            results.append(one | dict(score=float(scores[i, n])))
    classes = [f"class {k}" for k in range(80)]
    folder = work_dir / "predictions"
    folder.mkdir(parents=True)
    (work_dir / "truth.json").write_text(
        json.dumps(
            dict(
                images=entries,
                annotations=annotations,
                categories=[dict(id=k + 1, name=name) for k, name in enumerate(classes)],
            )
        )
    )
    (folder / "detections.json").write_text(json.dumps(results))
    index = dict(format=1, task="detection", classes=classes, palette=None, images=entries,
                 annotations=str(work_dir / "truth.json"), image_root=str(work_dir))  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index))
    return work_dir


def test_five_thousand_pictures_stay_small_and_quick(chromium: Any, tmp_path: Path) -> None:
    page = write_report(big_run(tmp_path / "big"))
    assert page.stat().st_size < 5_000_000
    visit = Visit(chromium, page)
    assert visit.cards().count() == 24
    assert "1–24 of 5,000" in visit.page.locator("#pictures .pager").inner_text()
    visit.page.locator("#pictures").get_by_role("button", name="Next").click()
    assert "25–48 of 5,000" in visit.page.locator("#pictures .pager").inner_text()
    filtering_ms = visit.page.evaluate(
        """() => {
          const select = document.querySelectorAll("#pictures select")[1];
          const start = performance.now();
          select.value = "localisation";
          select.dispatchEvent(new Event("change"));
          return performance.now() - start;
        }"""
    )
    assert filtering_ms < 1500
    assert [url for url in visit.asked if not url.startswith(("file:", "data:"))] == []
    visit.context.close()
