"""environment.json: versions, devices, commit, and what else may change rounding."""

import os
import pathlib
import platform
import subprocess
import sys
from importlib import metadata

from tfcq.machine import settings

_PACKAGES = ("tfcq", "tensorflow", "keras", "tensorflow-probability", "tensorflow-datasets", "numpy")


def environment():
    """Versions, devices, commit and what else may change rounding, as plain JSON values."""
    import tensorflow as tf

    def version(package):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "commit": _commit(),
        "packages": {package: version(package) for package in _PACKAGES},
        "devices": [device.name for device in tf.config.list_logical_devices()],
        **settings.record(),
    }


def _commit():
    """The commit of the checkout that this package runs from; None where it is no checkout of tfcq's.

    A package that is installed inside of another project's folder must not name that project's commit.
    """
    package = pathlib.Path(__file__).resolve().parent.parent
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # they name a repository wherever git runs
    here = {name: value for name, value in os.environ.items() if name not in others}

    def git(*arguments):
        command = ["git", "-C", str(package.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, env=here, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "setup.py", f"{package.name}/workdir/{pathlib.Path(__file__).name}")
        if pathlib.Path(git("rev-parse", "--show-toplevel")).resolve() == package.parent:
            return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        pass
    return None
