"""Puts the samples, which stand beside the packages in a checkout, into the wheel; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSamples(build_py):
    """``samples`` becomes ``jobs/samples``, where :mod:`jobs.demo` finds it when there is no checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for file in Path("samples").rglob("*"):
            if file.is_file():
                target = Path(self.build_lib, "jobs", file)
                self.mkpath(str(target.parent))
                self.copy_file(str(file), str(target))


setup(cmdclass={"build_py": BuildWithSamples})
