"""The page of results says what the configs do."""

from __future__ import annotations

import re

from tests.results_page import PAGE, results_page


def test_the_page_of_results_is_up_to_date() -> None:
    assert PAGE.read_text() == results_page(), "run python -m tests.results_page"


def test_the_page_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text())
    assert len(links) >= 21
    assert all((PAGE.parent / link).is_file() for link in links)
