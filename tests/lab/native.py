"""The lab's own C++ programs: where they are, built when they are not."""

import hashlib
import os
import pathlib

from . import packages
from .commands import run


def program(name, source, variable, folder=None):
    """Path of the program `name`: what the environment's `variable` says if it is set, else built (if
    needed) in `folder`.

    `source` is the subfolder of tests/lab with its CMakeLists.txt, `folder` a CMake build folder of
    that alone; default: one for this checkout in the lab's cache. LabError with the compiler's words.
    """
    if given := os.environ.get(variable):
        return pathlib.Path(given)
    source = pathlib.Path(__file__).resolve().parent / source
    cache = packages.cache_directory()
    checkout = hashlib.sha256(str(source).encode()).hexdigest()[:12]
    folder = pathlib.Path(folder or cache / f"{name.removeprefix('lab-')}-{checkout}")
    with packages.CacheLock(cache):
        run(["cmake", "-G", "Ninja", "-S", str(source), "-B", str(folder)], what=f"configure {name}")
        run(["cmake", "--build", str(folder)], what=f"build {name}", timeout_s=600)
    return folder / "bin" / name
