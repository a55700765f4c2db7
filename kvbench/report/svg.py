"""A figure's SVG as part of a page: with the page's colours, ids of its own, and no byte that draws nothing.

Matplotlib writes a picture that stands alone: a group around each element, a style on each, an element for each dot.
A page has hundreds of pictures, so what is the same for all of them is in report.css.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

__all__ = ["part_of_a_page"]

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_SERIES = "series:"  # what a group's id begins with that belongs to a series
_NUMBER = re.compile(r"-?\d+\.\d+")
_STAND_IN = re.compile(r"#0102[0-9a-f]{2}")
_OF_THE_PAGE = r" ?(font-family: [^;]*|font-size: 11px|stroke-linejoin: \w+|fill: (none|currentColor))(;|$)"
_GRID = "--grid"  # lines that never leave the axes
_NO_TURN = "rotate(-0 "
_ROUND = "C"  # in the path of a marker that is a circle

ElementTree.register_namespace("", _SVG)


def part_of_a_page(svg: str, name: str, colours: Mapping[str, str]) -> Markup:
    """Text of an ``<svg>`` element: labelled by ``NAME-title``, and with CSS in place of the stand-in ``colours``."""
    root = ElementTree.fromstring(svg)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    _join_dots(root)
    _flatten(root)
    _join_bars(root)
    _name_ids(root, name)
    for element in root.iter():
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
        _shorten(element, colours)
    # Written out by a serialiser that escapes all text: what it returns is safe to be put on a page.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _tag(name: str) -> str:
    return f"{{{_SVG}}}{name}"


def _join_dots(root: Element) -> None:
    """The dots of a line as one path of round ends, where matplotlib has an element for each."""
    # Lines that look alike share the marker that the first of them defines.
    markers = {f"#{each.get('id')}": each.get("d", "") for each in root.iterfind(f".//{_tag('defs')}/{_tag('path')}")}
    for group in list(root.iter(_tag("g"))):
        uses = group.findall(f"{_tag('g')}/{_tag('use')}")
        marker = markers.get(uses[0].get(_LINK, ""), "") if uses else ""
        colour = re.search(r"stroke: (#\w+)", uses[0].get("style", "")) if uses else None
        if colour is None or _ROUND not in marker:
            continue
        radius = max(abs(float(each)) for each in re.findall(r"-?[\d.]+", marker))
        places = "".join(f"M {use.get('x')} {use.get('y')} h 0 " for use in uses)
        style = f"fill: none; stroke: {colour[1]}; stroke-width: {2 * radius + 1}; stroke-linecap: round"
        dots = Element(_tag("path"), {"d": places, "style": style})
        # Without matplotlib's clipping: a dot on an axis is seen whole.
        group[:] = [*(each for each in group if each.tag == _tag("path")), dots]


def _flatten(root: Element) -> None:
    """Take away groups that say nothing, empty definitions, and shapes without a colour."""

    def kept(parent: Element) -> Iterator[Element]:
        for child in parent:
            child[:] = list(kept(child))
            is_series = child.get("id", "").startswith(_SERIES)
            if child.tag == _tag("g") and not is_series and "clip-path" not in child.attrib:
                yield from child
            elif child.tag in (_tag("defs"), _tag("g")) and not [each for each in child if each.tag != _tag("style")]:
                continue
            elif child.get("style") != "fill: none":
                yield child

    root[:] = list(kept(root))


def _join_bars(root: Element) -> None:
    """Bars of one series that follow each other as one path."""
    last = None
    for group in list(root):
        shapes = [each for each in group if each.tag == _tag("path") and len(group) == 1]
        alike = (group.get("id"), *(each.get("style") for each in shapes))
        if shapes and group.get("id", "").startswith(_SERIES) and last is not None and last[0] == alike:
            last[1].set("d", f"{last[1].get('d')} {shapes[0].get('d')}")
            root.remove(group)
        else:
            last = (alike, shapes[0]) if shapes else None


def _name_ids(root: Element, prefix: str) -> None:
    """Ids that no other figure has; groups of a series get its number instead."""
    names: dict[str, str] = {}
    for element in root.iter():
        own = element.attrib.pop("id", "")
        if own.startswith(_SERIES):
            element.set("data-series", own.removeprefix(_SERIES))
        elif own and element.tag in (_tag("clipPath"), _tag("path")):
            names[own] = f"{prefix}-{len(names)}"
            element.set("id", names[own])
    for element in root.iter():
        target = element.attrib.pop(_LINK, "")
        if target:
            element.set("href", f"#{names[target.removeprefix('#')]}")  # a page knows no prefixes of namespaces
        clip = re.fullmatch(r"url\(#(.+)\)", element.get("clip-path", ""))
        if clip:
            element.set("clip-path", f"url(#{names[clip[1]]})")


def _shorten(element: Element, colours: Mapping[str, str]) -> None:
    """Tenths of a point are enough, and what report.css says is not said again."""
    if element.get("transform", "").startswith(_NO_TURN):
        del element.attrib["transform"]
    for attribute, value in list(element.attrib.items()):
        if attribute in ("style", "fill", "stroke"):
            short = re.sub(_OF_THE_PAGE, "", _STAND_IN.sub(lambda match: colours[match[0]], value)).strip("; ")
            element.set(attribute, short)
        if attribute in ("d", "x", "y", "width", "height", "transform", "style"):
            rounded = _NUMBER.sub(lambda match: f"{float(match[0]):.1f}".removesuffix(".0"), element.get(attribute, ""))
            element.set(attribute, " ".join(rounded.split()))
    if _GRID in element.get("style", ""):
        element.attrib.pop("clip-path", None)
