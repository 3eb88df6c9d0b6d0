#!/usr/bin/env python3
"""What the documentation says is so: the messages that docs/operations.md explains are ones that the
programs print, and links within the documentation lead somewhere.
"""

import pathlib
import re
import unittest

_PROJECT = pathlib.Path(__file__).resolve().parent.parent
_DOCUMENTS = [*_PROJECT.glob("*.md"), *_PROJECT.glob("docs/**/*.md")]


def printed_texts():
    """The C++ sources with string literals joined as the compiler joins them, and what is put into
    them taken out."""
    text = "\n".join(path.read_text() for folder in ("libpostcopy", "uffd-server")
                     for path in sorted((_PROJECT / folder).rglob("*.[ch]*")))
    text = re.sub(r'"\s*(?:PRIu64\s*)?"', "", text)
    return text.replace('\\"', '"')


class Documentation(unittest.TestCase):
    def test_messages_explained_are_messages_printed(self):
        manual = (_PROJECT / "docs/operations.md").read_text()
        table = manual.split("\n## Messages\n")[1].split("\n## ")[0]
        sources = printed_texts()
        explained = [message for row in table.splitlines() if row.startswith("| `")
                     for message in re.findall(r"`([^`]*)`", row.split("|")[1])]
        self.assertGreater(len(explained), 15)
        for message in explained:
            for part in message.split("…"):
                with self.subTest(message=message):
                    self.assertTrue(part in sources, f"nothing prints {part!r}")

    def test_links_lead_somewhere(self):
        for document in _DOCUMENTS:
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
                if "://" not in target:
                    with self.subTest(document=document.name, target=target):
                        self.assertTrue((document.parent / target).exists())


if __name__ == "__main__":
    unittest.main()
