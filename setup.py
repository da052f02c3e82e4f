"""The wheel carries data/weights as ldm_edu/weights; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithWeights(build_py):
    """setuptools has no setting for data that lie outside the package."""

    def run(self):
        super().run()
        if not self.editable_mode:  # there, ldm_edu finds them where they are
            self.copy_tree("data/weights", str(Path(self.build_lib) / "ldm_edu" / "weights"))


setup(cmdclass={"build_py": BuildWithWeights})
