"""What pyproject.toml cannot say: the compiled parts, which are left out, with a warning, where no compiler is."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COMPILED = ("kvcache._cpu_kernels", "kvcache.storage._page_arrays")


class BuildExtensions(build_ext):
    """Leaves out what cannot be compiled, also where it could be once: no binary outlives its source."""

    def build_extension(self, ext: Extension) -> None:
        changed = Path(ext.sources[0]).stat().st_mtime
        in_place, built = self.get_ext_filename(ext.name), self.get_ext_fullpath(ext.name)
        for binary in (Path(in_place), Path(built)):
            if binary.exists() and binary.stat().st_mtime < changed:
                binary.unlink()
        super().build_extension(ext)


setup(
    ext_modules=[Extension(name, [f"{name.replace('.', '/')}.c"], optional=True) for name in COMPILED],
    cmdclass={"build_ext": BuildExtensions},
)
