"""Environment variables that the gate hands to what it builds and measures: another commit's code gets no secrets.

Both sides get the same ones. This keeps a token out of a build's log. It is no wall: what is run has the rights of
whoever runs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

__all__ = ["HANDED_OVER", "environment"]

# Names; with a star, all names that begin so.
HANDED_OVER = (
    # where programs, libraries and temporary files are, and how texts are written
    "HOME", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TEMP", "TMP", "TZ", "USER", "VIRTUAL_ENV", "XDG_CACHE_HOME",
    "LANG", "LANGUAGE", "LC_*", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "SYSTEMROOT",
    # what compiles
    "AR", "ARCHFLAGS", "CC", "CFLAGS", "CPATH", "CPP", "CPPFLAGS", "CXX", "CXXFLAGS", "C_INCLUDE_PATH", "LDFLAGS",
    "LDSHARED", "LIBRARY_PATH", "MACOSX_DEPLOYMENT_TARGET", "PKG_CONFIG_PATH", "SDKROOT", "SOURCE_DATE_EPOCH",
    # how many threads calculate, and on which device
    "CUDA_*", "GOMP_*", "KMP_*", "MALLOC_*", "MKL_*", "NUMEXPR_*", "NVIDIA_VISIBLE_DEVICES", "OMP_*", "OPENBLAS_*",
    "PYTORCH_*", "TORCH_*", "TRITON_*",
    # Python itself
    "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONHOME", "PYTHONIOENCODING", "PYTHONMALLOC", "PYTHONNOUSERSITE",
    "PYTHONPYCACHEPREFIX", "PYTHONUTF8",
)  # fmt: skip


def environment(more: Iterable[str] = ()) -> dict[str, str]:
    """This process's variables that are in the list, and those of the names ``more``."""
    names = {*HANDED_OVER, *more}
    prefixes = tuple(name[:-1] for name in HANDED_OVER if name.endswith("*"))
    return {name: value for name, value in os.environ.items() if name in names or name.startswith(prefixes)}
