#!/usr/bin/env python3
"""seeds.py DOCUMENT FOLDER [PREFIX]: writes each `hex` example of a protocol's document to a file in
FOLDER, behind the byte PREFIX (hexadecimal), to begin a fuzz target with."""

import pathlib
import re
import sys


def main():
    document, folder, *prefix = sys.argv[1:]
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = pathlib.Path(document).read_text()
    examples = re.findall(r"^```hex (\S+)\n(.*?)^```", text, re.M | re.S)
    if not examples:
        sys.exit(f"seeds.py: {document} has no hex examples")
    for name, lines in examples:
        digits = re.sub(r"#.*", "", lines)  # comments
        (folder / name).write_bytes(bytes.fromhex("".join(prefix)) + bytes.fromhex(digits))


main()
