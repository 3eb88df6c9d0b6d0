#!/usr/bin/env python3
"""The layers of the design, checked by reading the includes of every file.

A folder is a layer; USES says whose headers its files may include, as in docs/architecture.md.
Also: kernel and socket headers stay in platform/, gRPC in its folders, and each header begins
with what it is for. Files that have grown long are named, without failing.
"""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LONG_FILE_LINES = 400

# Folder: the folders whose headers it may include besides its own.
USES = {
    "libpostcopy/core": [],
    "libpostcopy/wire": ["core"],
    "libpostcopy/platform": ["core"],
    "libpostcopy/transport": ["core", "wire", "platform"],
    "libpostcopy/engine": ["core", "wire", "platform", "transport"],
    "libpostcopy/attach": ["core", "wire", "platform"],
    "libpostcopy/abi": ["core", "wire", "platform", "transport", "engine", "attach", "postcopy"],
    "libpostcopy/preload": ["core", "wire", "platform", "attach"],
    "libpostcopy/include/postcopy": ["postcopy"],
    "uffd-server/config": ["core"],
    "uffd-server/server": ["core", "wire", "platform", "transport", "engine", "attach"],
    "uffd-server/vmm": ["core", "platform"],
    "uffd-server/trace": ["core", "platform"],
    "uffd-server/relocation": ["core", "wire", "platform", "transport", "engine", "server", "trace",
                               "vmm"],
    "uffd-server/host": ["relocation"],
    "uffd-server/control": ["core", "relocation"],
    "uffd-server/cli": ["core", "config", "relocation", "control"],
}
LAYERS = {"core", "wire", "platform", "transport", "engine", "attach", "abi", "preload", "postcopy",
          "config", "host", "server", "trace", "vmm", "relocation", "control", "cli"}

# What only platform/ and preload/ may touch; tests are free to.
KERNEL_HEADERS = re.compile(
    r"(linux|sys|netinet|arpa|net|infiniband|rdma)/|(netdb|poll|spawn|sched)\.h$")
MAY_USE_KERNEL = ("libpostcopy/platform", "libpostcopy/preload")

RPC_HEADERS = re.compile(r"(grpc|grpcpp|google/protobuf)/|.*\.pb\.h$")
MAY_USE_RPC = ("uffd-server/control", "uffd-server/cli", "uffd-server/main.cc")

# What a VMM loads has none of these.
DAEMON_LIBRARIES = re.compile(r"(absl|spdlog|nlohmann|CLI|toml\+\+|prometheus)/")

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def includes_of(text):
    """The paths that `text` includes, in order."""
    return INCLUDE.findall(text)


def folder_of(path):
    """The layer's folder of a source file: libpostcopy/core of libpostcopy/core/units.h."""
    for folder in USES:
        if path.startswith(folder + "/"):
            return folder
    return None


def complaints_about(path, text):
    """What is wrong with the includes and the head of one file; `path` is relative to the project."""
    found = []
    folder = folder_of(path)
    # The file that wires everything together may use every layer.
    allowed = LAYERS if folder is None else {folder.split("/")[-1], *USES[folder]}
    for included in includes_of(text):
        layer = included.split("/")[0] if "/" in included else None
        if layer in LAYERS and layer not in allowed:
            found.append(f"{path}: {folder} may not include {included}")
        if KERNEL_HEADERS.match(included) and not path.startswith(MAY_USE_KERNEL):
            found.append(f"{path}: only platform/ and preload/ may include {included}")
        if RPC_HEADERS.match(included) and not path.startswith(MAY_USE_RPC):
            found.append(f"{path}: only control/, cli/ and main.cc may include {included}")
        if DAEMON_LIBRARIES.match(included) and path.startswith("libpostcopy/"):
            found.append(f"{path}: {included} must not be loaded into a VMM")
    if path.endswith((".h", ".hpp")):
        found += complaints_about_head(path, text)
    return found


def complaints_about_head(path, text):
    lines = text.splitlines()
    found = []
    if not lines or not lines[0].startswith(("// ", "/* ", "/*")):
        found.append(f"{path}: does not begin with a comment that says what it is")
    # C99 has no #pragma once; the load client is built alone and has guards of its own.
    guards = ("#pragma once", "#ifndef POSTCOPY_", "#ifndef LAB_")
    if not any(line.startswith(guards) for line in lines):
        found.append(f"{path}: no #pragma once")
    return found


def source_files(*folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".h", ".hpp", ".cc", ".c"):
                yield path.relative_to(ROOT).as_posix(), path.read_text()


class LayeringTest(unittest.TestCase):
    def test_every_file_keeps_to_its_layer(self):
        found = []
        for path, text in source_files("libpostcopy", "uffd-server"):
            found += complaints_about(path, text)
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_every_folder_is_a_known_layer(self):
        for path, _ in source_files("libpostcopy", "uffd-server"):
            if path != "uffd-server/main.cc":
                self.assertIsNotNone(folder_of(path), f"{path} lies in no layer")

    def test_headers_of_tests_say_what_they_are(self):
        found = []
        for path, text in source_files("tests"):
            if path.endswith(".h") and "/guest/" not in path:
                found += complaints_about_head(path, text)
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_each_source_file_includes_its_own_header_first(self):
        """So that compiling x.cc shows that x.h compiles alone."""
        files = dict(source_files("libpostcopy", "uffd-server"))
        for path, text in files.items():
            header = path[:-3] + ".h"
            if path.endswith(".cc") and header in files:
                first = includes_of(text)[0]
                self.assertTrue(header.endswith("/" + first), f"{path} includes {first} first")

    def test_long_files_are_named(self):
        for path, text in source_files("libpostcopy", "uffd-server", "tests"):
            lines = text.count("\n")
            if lines > LONG_FILE_LINES:
                print(f"long file: {path} has {lines} lines", file=sys.stderr)


class CheckerTest(unittest.TestCase):
    """The check itself notices what it is for."""

    def test_upward_include_is_noticed(self):
        self.assertEqual(len(complaints_about("libpostcopy/core/x.cc", '#include "engine/e.h"\n')), 1)

    def test_kernel_header_outside_platform_is_noticed(self):
        text = "#include <sys/mman.h>\n"
        self.assertEqual(len(complaints_about("libpostcopy/engine/x.cc", text)), 1)
        self.assertEqual(complaints_about("libpostcopy/platform/x.cc", text), [])

    def test_rpc_header_outside_its_folders_is_noticed(self):
        text = "#include <grpcpp/grpcpp.h>\n"
        self.assertEqual(len(complaints_about("uffd-server/server/x.cc", text)), 1)
        self.assertEqual(complaints_about("uffd-server/main.cc", text), [])

    def test_daemon_library_in_the_vmm_is_noticed(self):
        self.assertEqual(
            len(complaints_about("libpostcopy/core/x.cc", '#include "absl/status/status.h"\n')), 1)

    def test_header_without_comment_or_guard_is_noticed(self):
        self.assertEqual(len(complaints_about("libpostcopy/core/x.h", "int x;\n")), 2)


if __name__ == "__main__":
    unittest.main()
