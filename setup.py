"""What pyproject.toml cannot say: the compiled parts, left out with a warning where no compiler is, and the commit."""

import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

COMPILED = (
    "kvcache._slots",
    "kvcache.eviction._tree",
    "kvcache.kernels._cpu_kernels",
    "kvcache.storage._page_arrays",
    "kvcache.world_model._tree_arrays",
    "kvbench.record._fixed_tree",
)


if sysconfig.get_config_var("Py_GIL_DISABLED"):
    # A cache belongs to one thread, and which one is checked under the lock that this Python does not have.
    raise SystemExit(
        "kvcache does not run on free-threaded Python (python3.13t, python3.14t): install it with the ordinary build "
        "of the same version, or give each process a cache of its own"
    )


class BuildModules(build_py):
    """Notes in the wheel which commit it was built from, so that what is measured with it can say so."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout is asked when it is used
            return
        note = Path(self.build_lib) / "kvcache" / "_built_from.py"
        note.unlink(missing_ok=True)
        if not Path(".git").exists():
            return
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return
        note.write_text(
            f'"""The commit that this library was built from; setup.py wrote it."""\n\nCOMMIT = "{commit}"\n'
        )


class BuildExtensions(build_ext):
    """Leaves out what cannot be compiled, also where it could be once: no binary outlives its source."""

    def build_extension(self, ext: Extension) -> None:
        changed = max(Path(each).stat().st_mtime for each in (*ext.sources, *ext.depends))
        in_place, built = self.get_ext_filename(ext.name), self.get_ext_fullpath(ext.name)
        for binary in (Path(in_place), Path(built)):
            if binary.exists() and binary.stat().st_mtime < changed:
                binary.unlink()
        super().build_extension(ext)


SOURCES = {name: f"{name.replace('.', '/')}.c" for name in COMPILED}

setup(
    # The gate builds the library alone, without the suite's part.
    ext_modules=[
        Extension(name, [path], depends=[str(each) for each in Path(path).parent.glob("*.h")], optional=True)
        for name, path in SOURCES.items()
        if Path(path).exists()
    ],
    cmdclass={"build_ext": BuildExtensions, "build_py": BuildModules},
)
