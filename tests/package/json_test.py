#!/usr/bin/python3
"""What postcopyctl prints with --json is what its JSON Schema and docs/json.md say, for every command,
whether it succeeds or fails. The answers are those of control_postcopyctl_test, which runs the real
program.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import jsonschema
except ImportError:
    print("skipped: missing: python3-jsonschema")
    sys.exit(77)

from programs import BUILD, CTL, PROJECT, commands_in_help, help_of

SCHEMA = json.loads((PROJECT / "docs/postcopyctl.schema.json").read_text())
DOCUMENT = (PROJECT / "docs/json.md").read_text()
TEST = BUILD / "tests/control/control_postcopyctl_test"


def table(heading):
    """The rows below a heading of the document, as lists of cells without their backquotes."""
    section = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


def check(command, answer):
    """Raises a ValidationError if the answer is not as the schema has it for the command."""
    jsonschema.Draft202012Validator(SCHEMA | {"$ref": f"#/$defs/{command}"}).validate(answer)


class JsonTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder:
            kept = pathlib.Path(folder) / "answers"
            done = subprocess.run([TEST], env=dict(os.environ, POSTCOPY_ANSWERS=str(kept)), text=True,
                                  capture_output=True, check=False, timeout=50)
            if done.returncode != 0:
                raise AssertionError(done.stdout[-2000:])
            cls.runs = [json.loads(line) for line in kept.read_text().splitlines()]

    def answers(self):
        """Command (None where the command line has none), exit code and answer of each run; of `watch`
        each line is an answer."""
        for run in self.runs:
            words = [word for word in run["arguments"] if not word.startswith("-")]
            texts = [run["out"]] if words[:1] != ["watch"] else run["out"].splitlines()
            for text in texts:
                yield words[0] if words else None, run["code"], json.loads(text)

    def test_the_schema_is_one(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_every_answer_is_as_the_schema_has_it(self):
        for command, code, answer in self.answers():
            with self.subTest(command=command, code=code):
                check(command if command in SCHEMA["$defs"] else "failure", answer)

    def test_every_command_was_seen_to_succeed_and_to_fail(self):
        seen = {(command, code == 0) for command, code, _ in self.answers()}
        for command in commands_in_help(help_of(CTL)):
            self.assertIn((command, True), seen)
            self.assertIn((command, False), seen)

    def test_an_answer_that_is_wrong_is_noticed(self):
        command, _, answer = next(each for each in self.answers() if each[0] == "stats")
        for wrong in ({"state": "STATE_PREPARED"}, {"more": 1}, {"downtime_ms": "7"}):
            with self.assertRaises(jsonschema.ValidationError):
                check(command, answer | wrong)
        with self.assertRaises(jsonschema.ValidationError):
            check(command, {name: value for name, value in answer.items() if name != "error"})

    def test_exit_codes_and_outcomes_are_those_of_the_document_and_of_the_help(self):
        documented = [(word, int(code)) for word, code, *_ in table("Outcomes")]
        listed = re.findall(r"^  (\d)  ([a-z, -]+): ", help_of(CTL), re.MULTILINE)
        in_help = [(word, int(code)) for code, words in listed for word in words.split(", ")]
        self.assertEqual(documented, in_help)
        codes = dict(documented)
        for _, code, answer in self.answers():
            if answer["outcome"] is not None:
                self.assertEqual(codes[answer["outcome"]], code, answer)

    def test_the_document_names_every_figure_and_state(self):
        figures = [name for name, *_ in table("Figures")]
        self.assertEqual(figures, list(SCHEMA["$defs"]["figures"]["properties"]))
        states = [name for name, *_ in table("States")]
        self.assertEqual(states + [None], SCHEMA["$defs"]["state"]["enum"])


if __name__ == "__main__":
    sys.exit(unittest.main())
