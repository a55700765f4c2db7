"""What pyproject.toml cannot say: the compiled part, which is left out, with a warning, where no compiler is."""

from setuptools import Extension, setup

COMPILED = ("kvcache._cpu_kernels", "kvcache.storage._page_arrays")

setup(ext_modules=[Extension(name, [f"{name.replace('.', '/')}.c"], optional=True) for name in COMPILED])
