"""A plan: what a sweep crosses. It is read from TOML, and every fault names the file, the key and the choices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kvbench.errors import FileError
from kvbench.files import read_regular
from kvbench.parse import parse_toml
from kvbench.replay.settings import DTYPES, CapacityError, parse_capacity
from kvcache import BACKENDS, CacheConfig, EvictionStrategy

__all__ = ["INSTALLED", "STORAGES_OF_NEW", "Plan", "PlanError", "read_plan"]

INSTALLED = "installed"  # in place of a commit: the library in use
STORAGES_OF_NEW = [name.partition(":")[2] for name in BACKENDS if name.startswith("new:")]
_LONGEST = 10**9
_EVICTION = str(CacheConfig.__dataclass_fields__["eviction_strategy"].default)
_CHOICES = {
    "backend": list(BACKENDS),
    "storage": STORAGES_OF_NEW,
    "eviction": list(dict.fromkeys([*(each.value for each in EvictionStrategy), _EVICTION])),
    "dtype": list(DTYPES),
    "device": ["cpu", "cuda"],
}
Searches = Annotated[int, Meta(ge=1, le=_LONGEST)]


class PlanError(FileError):
    """A plan that cannot be used: which file, which key, and what it may be."""


class Plan(Struct, frozen=True, forbid_unknown_fields=True):
    """A sweep has a cell for each combination of the first eight.

    Attributes:
        trace: files; a name may be a pattern, as ``traces/*.parquet``.
        backend: caches. ``storage`` goes with ``new``, and ``eviction`` with all but the legacy ones.
        capacity: as ``kvbench replay --capacity`` has them.
        commit: revisions of the library, or ``installed``: the one in use.
        searches: of each trace; None is all.
        repetitions: timed ones; 0 only counts.
        counted_searches: operations are counted in the first so many; None is all.
        repeated: share of the cells that a second worker computes again, to be compared.
    """

    trace: tuple[str, ...]
    backend: tuple[str, ...] = ("legacy", "new")
    storage: tuple[str, ...] = ()
    capacity: tuple[str | int, ...] = ("default",)
    eviction: tuple[str, ...] = (_EVICTION,)
    dtype: tuple[str, ...] = ("float32",)
    device: tuple[str, ...] = ("cpu",)
    commit: tuple[str, ...] = (INSTALLED,)
    searches: Searches | None = None
    repetitions: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    counted_searches: Searches | None = None
    repeated: Annotated[float, Meta(ge=0, le=1)] = 0.05


_LISTS = ("trace", "backend", "storage", "capacity", "eviction", "dtype", "device", "commit")


def read_plan(path: Path) -> Plan:
    """Read a plan; its traces are files that exist. Raises PlanError."""
    try:
        content = parse_toml(read_regular(path).decode())
    except FileNotFoundError:
        raise PlanError(path, "no such file: name a plan in TOML (docs/sweeps.md has one)") from None
    except OSError as error:
        raise PlanError(path, f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise PlanError(path, f"not TOML ({error})") from None
    plan = _typed(path, {name: _as_list(name, value) for name, value in content.items()})
    for name in _LISTS:
        _check_values(path, name, getattr(plan, name), name in content)
    _check_used(path, plan, content)
    for each in plan.capacity:
        try:
            parse_capacity(str(each))
        except CapacityError as error:
            raise PlanError(path, f"capacity: {error}") from None
    return msgspec.structs.replace(plan, trace=tuple(map(str, _files(path, plan.trace))))


def _as_list(name: str, value: Any) -> Any:
    """A single value stands for a list of one."""
    return [value] if name in _LISTS and isinstance(value, str | int) and not isinstance(value, bool) else value


def _typed(path: Path, content: dict[str, Any]) -> Plan:
    unknown = next((each for each in content if each not in Plan.__struct_fields__), None)
    if unknown is not None:
        raise PlanError(path, f"{unknown}: no key of a plan: choose from {', '.join(Plan.__struct_fields__)}")
    if "trace" not in content:
        raise PlanError(path, "trace: it is missing: name one or more trace files")
    try:
        return msgspec.convert(content, Plan)
    except ValueError as error:
        fault, _, place = str(error).replace("`", "").partition(" - at $.")
        raise PlanError(path, f"{place.replace('[...]', '')}: {fault}") from None


def _check_values(path: Path, name: str, values: Sequence[str | int], is_given: bool) -> None:
    if is_given and not values:
        leave_out = "" if name == "trace" else "leave it out or "
        raise PlanError(path, f"{name}: the list is empty: {leave_out}name at least one")
    known = _CHOICES.get(name)
    for number, each in enumerate(values):
        if known is not None and each not in known:
            raise PlanError(path, f"{name}: {each!r} is not known: choose from {', '.join(known)}")
        if str(each) in map(str, values[:number]):
            raise PlanError(path, f"{name}: {str(each)!r} is there twice")
        if not str(each):
            raise PlanError(path, f"{name}: an empty text is none")


def _check_used(path: Path, plan: Plan, given: Mapping[str, Any]) -> None:
    """Refuse what no cell would have."""
    if "storage" in given and "new" not in plan.backend:
        raise PlanError(path, f"storage: only the backend new has these, and not {', '.join(plan.backend)}")
    if "eviction" in given and not any(each.partition(":")[0] == "new" for each in plan.backend):
        raise PlanError(path, f"eviction: only new backends have these, and not {', '.join(plan.backend)}")


def _files(path: Path, names: Iterable[str]) -> list[Path]:
    """The trace files, in the order of the plan, each once. Names are relative to the plan, or to this folder."""
    found: dict[Path, Path] = {}
    for name in names:
        places = [path.parent / name, Path(name)]
        if re.search(r"[*?\[]", name):
            files = next((files for each in places if (files := sorted(map(Path, glob(str(each)))))), [])
        else:
            files = [each for each in places if each.exists()][:1]
        if not files:
            where = " and ".join(dict.fromkeys(str(each.absolute().parent) for each in places))
            raise PlanError(path, f"trace: {name!r} is no file: looked in {where}")
        found |= {each.resolve(): each.absolute() for each in files}
    return list(found)
