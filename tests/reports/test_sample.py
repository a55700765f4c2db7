"""The committed sample report: small, whole, and of the files that it lists."""

import re

from sample import LARGEST, SAMPLE, size_of


def test_it_is_small():
    assert size_of(SAMPLE) <= LARGEST


def test_what_its_pages_link_is_there():
    for page in SAMPLE.glob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"', page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links {link}"
