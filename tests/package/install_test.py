#!/usr/bin/env python3
"""Outside projects find, build and run against what `cmake --install` puts under a prefix."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from programs import BUILD, PROJECT

OUTSIDE = pathlib.Path(__file__).resolve().parent / "outside"
VERSION = re.search(r"project\(libpostcopy VERSION ([\d.]+)",
                    (PROJECT / "CMakeLists.txt").read_text()).group(1)


def run(*argv, **environment):
    """Runs a command to its end; what it said is the failure's text, or the result."""
    done = subprocess.run(argv, env=dict(os.environ, **environment), text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stdout}")
    return done.stdout


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.prefix = cls.folder / "prefix"
        for component in ("library", "development"):
            run("cmake", "--install", BUILD, "--prefix", cls.prefix, "--component", component)
        cls.library = next(cls.prefix.rglob("libpostcopy.so.1"))

    def run_outside(self, program):
        self.assertEqual(run(program, LD_LIBRARY_PATH=str(self.library.parent)).strip(), VERSION)

    def build_with_pkg_config(self, compiler, source):
        path = {"PKG_CONFIG_PATH": str(next(self.prefix.rglob("postcopy.pc")).parent)}
        self.assertEqual(run("pkg-config", "--modversion", "postcopy", **path).strip(), VERSION)
        flags = run("pkg-config", "--cflags", "--libs", "postcopy", **path).split()
        program = self.folder / source.replace(".", "-")
        run(*compiler, OUTSIDE / source, "-o", program, "-Wall", "-Wextra", "-Werror", *flags)
        self.run_outside(program)

    def configure(self, wanted):
        """The build folder of the outside CMake project, which wants that version."""
        build = self.folder / f"outside-{wanted}"
        run("cmake", "-G", "Ninja", "-S", OUTSIDE, "-B", build, f"-DPOSTCOPY_WANTED={wanted}",
            f"-DCMAKE_PREFIX_PATH={self.prefix}")
        return build

    def test_c_with_pkg_config(self):
        self.build_with_pkg_config(["cc", "-std=gnu11"], "main.c")

    def test_cxx_with_pkg_config(self):
        self.build_with_pkg_config(["c++", "-std=c++17"], "main.cc")

    def test_both_with_cmake(self):
        build = self.configure(VERSION.rpartition(".")[0])
        run("cmake", "--build", build)
        self.run_outside(build / "outside-c")
        self.run_outside(build / "outside-cxx")

    def test_another_interface_is_refused(self):
        major, minor, _ = VERSION.split(".")
        with self.assertRaisesRegex(AssertionError, "compatible with requested version"):
            self.configure(f"{major}.{int(minor) + 1}")

    def test_library_has_its_interface_number(self):
        self.assertIn("Library soname: [libpostcopy.so.1]", run("readelf", "-d", self.library))
        self.assertTrue(self.library.with_name("libpostcopy.so").is_symlink())

    def test_nothing_names_the_folder_of_the_build(self):
        for path in self.prefix.rglob("*"):
            if path.suffix in (".pc", ".cmake", ".h", ".hpp"):
                text = path.read_text()
                for folder in (BUILD, PROJECT, self.prefix):
                    self.assertNotIn(str(folder), text, path)


if __name__ == "__main__":
    sys.exit(unittest.main())
