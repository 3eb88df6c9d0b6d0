"""Which memory of a process a userfaultfd watches, as the kernel tells it."""

import pathlib


def registered(pid):
    """The mappings of `pid` that a userfaultfd watches: [(address, bytes)]. OSError if it has ended."""
    found, current = [], None
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        word = line.split(maxsplit=1)[0]
        if "-" in word and not word.endswith(":"):
            first, last = (int(part, 16) for part in word.split("-"))
            current = (first, last - first)
        elif word == "VmFlags:" and {"um", "ui"} & set(line.split()):
            found.append(current)
    return found
