"""Hatchling's build hook: a wheel brings the kernels compiled, for the processor and the Python that it is built with.

Who installs by pip waits while that goes on, and not at the first run. Where it cannot be done, or is not wanted
(`PAGETIDE_KERNELS=0`, for a wheel that is to go to other machines), the wheel has none, and the first run compiles.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Has kernels compiled into a folder of their own, as the package's `compiled`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say what of it belongs into the wheel.

        An editable one is used where it is, and its kernels are compiled into the cache.
        """
        self._folder: str | None = None
        if version == "editable" or os.environ.get("PAGETIDE_KERNELS") == "0":
            return
        self._folder = tempfile.mkdtemp(prefix="pagetide-kernels-")
        paths = [str(Path(self.root, "src")), os.environ.get("PYTHONPATH", "")]  # pip has what the build needs there
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "XDG_CACHE_HOME": self._folder}
        environment.pop("NUMBA_DISABLE_JIT", None)
        done = subprocess.run(
            [sys.executable, "-m", "pagetide.machine.kernels.ahead"],
            check=False,
            cwd=self._folder,
            env=environment,
            stdout=sys.stderr,
        )
        if done.returncode != 0:
            self.app.display_warning("pagetide: no kernels could be compiled; the first run does that")
            return
        for folder in Path(self._folder, "pagetide").iterdir():
            build_data["force_include"][str(folder)] = f"pagetide/compiled/{folder.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the folder, which is in the wheel now."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
