"""Whole reports, made once for all tests that read or open them."""

import pytest
from made_reports import make_hostile, make_plain
from pages import Page


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """The replays in the JSON file, the pages' paths, and the folder of everything."""
    folder = tmp_path_factory.mktemp("plain")
    replays, pages = make_plain(folder)
    return replays, pages, folder


@pytest.fixture(scope="session")
def made(plain):
    """The same with the pages read, by their names."""
    replays, pages, folder = plain
    return replays, {page.name.partition(".")[0]: Page(page) for page in pages}, folder


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """The pages of the hostile report."""
    return make_hostile(tmp_path_factory.mktemp("hostile"))
