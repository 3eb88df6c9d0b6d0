#!/usr/bin/env python3
"""Sums up the results that run.sh leaves in a folder: what failed, what was skipped, one last line.

<label>.xml is what ctest reports, one entry a program. A GoogleTest program also leaves
<label>/<program>.xml with its cases; then the cases count instead of the program, so that one
skipped case hides no other. <label>.steps has the lines of steps without ctest.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


class Results:
    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []

    def add(self, outcome, name, reason=""):
        text = f"{name}: {reason}" if reason else name
        if outcome == "passed":
            self.passed += 1
        elif outcome == "skipped":
            self.skipped.append(text)
        else:
            self.failed.append(text)

    def add_cases(self, prefix, report):
        """The cases of one GoogleTest program. Returns True if one of them failed."""
        any_failed = False
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{prefix} {case.get('classname')}.{case.get('name')}"
            skip = case.find("skipped")
            if case.find("failure") is not None:
                any_failed = True
                self.add("failed", name)
            elif skip is not None:
                lines = (skip.get("message") or "").strip().splitlines()
                self.add("skipped", name, lines[-1] if lines else "")
            elif case.get("status") == "notrun":
                self.add("skipped", name, "disabled")
            else:
                self.add("passed", name)
        return any_failed

    def add_program(self, label, case, folder):
        """One entry of ctest's report."""
        name = case.get("name")
        prefix = f"{label}: {name}"
        outcome = {"run": "passed", "notrun": "skipped", "disabled": "skipped"}.get(
            case.get("status"), "failed")
        skip = case.find("skipped")
        reason = skip.get("message", "") if skip is not None else ""
        if outcome == "skipped" and "Unable to find" in reason:
            outcome = "failed"
        report = folder / (name.replace("/", "_") + ".xml")
        if outcome == "skipped" or not report.exists():
            self.add(outcome, prefix, reason)
            return
        try:
            any_failed = self.add_cases(prefix, report)
        except ElementTree.ParseError:
            any_failed = False
        if outcome == "failed" and not any_failed:
            self.add("failed", prefix, "ended without naming a case that failed")


def main():
    folder = pathlib.Path(sys.argv[1])
    results = Results()
    for report in sorted(folder.glob("*.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            results.add_program(report.stem, case, folder / report.stem)
    for steps in sorted(folder.glob("*.steps")):
        for line in steps.read_text().splitlines():
            outcome, name, reason = line.split("\t")
            results.add(outcome, f"{steps.stem}: {name}", reason)
    for title, names in (("failed", results.failed), ("skipped", results.skipped)):
        if names:
            print(f"{title} ({len(names)}):")
            for name in names:
                print(f"  {name}")
    print(f"{results.passed} passed, {len(results.failed)} failed, {len(results.skipped)} skipped")
    return 1 if results.failed or results.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
