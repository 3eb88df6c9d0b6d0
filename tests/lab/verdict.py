"""The verdict on a relocated guest: is its memory intact, and the figures by their names.

Not responsible for playing the scenario (scenario.py) or for what the load saw (traffic.py).
"""

import dataclasses

from . import checker, load
from .commands import LabError


@dataclasses.dataclass
class Check:
    """What was found of a relocated guest's memory: intact if nothing is complained of."""

    files: dict = dataclasses.field(default_factory=dict)  # of load.verify_files; {}: not asked
    status: checker.Status = None                          # None: the checker did not say
    complaints: list = dataclasses.field(default_factory=list)  # a sentence each


def verify(stage, status_then):
    """Checks files and memory of the guest, which has been relocated; `status_then` is its
    checker's Status at the commit, or None. A check that cannot be made is a complaint."""
    guest, check = stage.config.guest, Check()
    try:
        check.files = load.verify_files(stage.network, stage.programs.load_client, guest,
                                        timeout_s=120)
        if not load.files_are_right(check.files):
            check.complaints.append(_files_complaint(check.files))
        check.status = checker.wait_full_passes(stage.network, guest.address, 2, since=status_then)
        if check.status.errors:
            check.complaints.append(
                f"the guest's checker found {check.status.errors} wrong words in its memory, the "
                f"first at offset {check.status.first_error_address}")
    except LabError as error:
        check.complaints.append(str(error))
    return check


def figures_of(moved):
    """The figures of a relocation by their public names; times in ms or us as the names say, None where
    the arm cannot tell.

    Of this project's arm faults, their times (event read to wake) and after_switch_ms (RESUME to last
    page) are the destination's daemon's; all else was observed from outside the project's own
    programs.
    """
    marks = moved.marks
    return {
        "downtime_ms": round((marks.resume - marks.stop) * 1000, 3),
        "total_ms": round((marks.commit - marks.command) * 1000, 1),
        "after_switch_ms": round(moved.after_switch_ms, 1),
        "faults": moved.faults,
        **{name: _rounded(getattr(moved, name))
           for name in ("fault_p50_us", "fault_p99_us", "fault_p999_us", "fault_max_us")},
        "bytes_moved": moved.bytes_moved,
        **moved.more,
    }


def figures_of_check(check):
    """What is left to say of the guest's memory."""
    return {
        "verified": not check.complaints,
        "files_checked": check.files.get("checked", 0),
        "files_wrong": check.files.get("wrong", 0),
        "checker_passes": check.status.passes if check.status else 0,
        "checker_errors": check.status.errors if check.status else 0,
    }


def _rounded(time_us):
    return None if time_us is None else round(time_us, 1)


def _files_complaint(files):
    if files["error"]:
        return f"fetching the files failed after {files['checked']} of {files['files']}: " \
               f"{files['error']}"
    return f"{files['wrong']} of {files['files']} files are wrong, the first is " \
           f"{files['first_wrong']}"
