"""What setup.cfg cannot say: the released models of ``checkpoints/`` go into the wheel, as ``robustlab/pretrained/``."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

MODELS = "checkpoints"


class BuildWithModels(build_py):
    """Copies them beside the package; an editable installation finds them in the tree."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self._models().items():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that are written, for the wheel's record."""
        models = [] if self.editable_mode else [str(target) for target in self._models().values()]
        return [*super().get_outputs(include_bytecode), *models]

    def _models(self) -> dict[Path, Path]:
        found = sorted(path for ending in ("*.json", "*.safetensors") for path in Path(MODELS).glob(ending))
        return {path: Path(self.build_lib, "robustlab", "pretrained", path.name) for path in found}


setup(cmdclass={"build_py": BuildWithModels})
