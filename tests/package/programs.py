"""The programs of the build that tests of what is installed look at, and what their --help says."""

import os
import pathlib
import re
import subprocess

PROJECT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("POSTCOPY_BUILD_DIR") or PROJECT / "build/release")
DAEMON = BUILD / "uffd-server/uffd-server"
CTL = BUILD / "uffd-server/cli/postcopyctl"


def help_of(program, *command):
    """What `program command --help` prints."""
    return subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=True,
                          timeout=20).stdout


def options_in_help(text):
    """Long options that a --help describes, without their dashes."""
    return set(re.findall(r"^  (?:-h,)?--([a-z-]+)", text, re.MULTILINE))


def commands_in_help(text):
    """Subcommands that a --help describes."""
    listed = re.search(r"^Subcommands:\n((?:  .*\n)+)", text, re.MULTILINE)
    return set(re.findall(r"^  ([a-z-]+)", listed.group(1), re.MULTILINE))
