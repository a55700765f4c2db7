"""What a result was measured in: Python, requirements, launch settings and the machine; and how two of these differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Settings", "difference", "is_of_machine", "named", "settings_of_asv"]

Settings = dict[str, str]  # by name; a requirement without a version has an empty text

_MACHINE = ("arch", "cpu", "num_cpu", "os", "ram")
_KINDS = ("virtualenv", "conda", "mamba", "rattler", "uv", "existing")  # of asv's environments
_UNNAMED = "environment"  # what the name of an environment says beyond all else
_MOST = 6  # settings that are named


def settings_of_asv(params: Mapping[str, Any], python: Any, parts: list[Any], name: str) -> Settings:
    """Of one of asv's files.

    Args:
        params: of the file: the machine, and mostly the rest as well.
        python: of the file; None where it does not say.
        parts: what is required and what is set: names and values, or anything else where the file does not say.
        name: of the environment; where the rest says less than it does, what is left of it counts as well.
    """
    found = {"python": str(python)} if python else {}
    said = [f"py{python}"]
    for part in (*parts, params):
        for each, value in part.items() if isinstance(part, Mapping) else ():
            text = "" if value is None else str(value)
            if text or each not in found:
                said.append(f"{each}{text}")
                # asv writes most of them twice; where the two differ, neither is taken for the truth.
                known = found.get(str(each)) or text
                found[str(each)] = text if known == text else f"{known} or {text}"
    found.pop("machine", None)
    for each in sorted(said, key=len, reverse=True):
        name = name.replace(each, "")
    kind, *rest = name.split("-")
    tokens = " ".join(filter(None, rest if kind in _KINDS else [kind, *rest]))
    found |= {"environment type": kind} if kind in _KINDS else {}
    found |= {_UNNAMED: tokens} if tokens else {}
    last = {each: found.pop(each) for each in _MACHINE if each in found}
    return found | last


def difference(before: Settings, after: Settings) -> str:
    """What changed from one to the other: ``python 3.11 to 3.12, with numba 0.60``; empty where nothing did."""
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if name == _UNNAMED:
            found.append(_tokens(old or "", new or ""))
        elif old is None:
            found.append(f"with {name} {new}".rstrip())
        elif new is None:
            found.append(f"without {name} {old}".rstrip())
        else:
            found.append(f"{name} {old or 'of any version'} to {new or 'of any version'}")
    more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return ", ".join([*found[:_MOST], *more])


def is_of_machine(before: Settings, after: Settings) -> bool:
    """Whether nothing differs but the machine."""
    return all(name in _MACHINE for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _tokens(old: str, new: str) -> str:
    before, after = old.split(), new.split()
    gone = " ".join(each for each in before if each not in after)
    come = " ".join(each for each in after if each not in before)
    if gone and come:
        return f"{gone} to {come}"
    return f"with {come}" if come else f"without {gone}"


def named(settings: Settings, others: list[Settings]) -> str:
    """What tells an environment from others: ``python 3.12``."""
    found = []
    for name, value in settings.items():
        if all(each.get(name) == value for each in others):
            continue
        if name == _UNNAMED:
            common = set.intersection(*(set(each.get(name, "").split()) for each in others))
            found += [token for token in value.split() if token not in common]
        else:
            found.append(f"{name} {value}".rstrip())
    lacking = {name: None for each in others for name in each if name not in settings and name != _UNNAMED}
    return ", ".join([*found, *(f"without {name}" for name in lacking)])
