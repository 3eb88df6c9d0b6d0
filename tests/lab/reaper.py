"""Cleans up after a lab whose process was killed before it could do so itself.

A child process that sleeps on a pipe from the lab. The lab tells it what it has made, before making
it; when the pipe closes without a farewell, the lab is gone, and the reaper undoes what is on its
list, newest first. In the normal case the lab cleans up and says farewell. Touches only what was
told to it.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

HUGE_PAGE_POOL = pathlib.Path("/proc/sys/vm/nr_hugepages")

_lock = threading.Lock()
_process = None  # one reaper a lab process, started when first needed, guarded by _lock


def note(kind, name):
    """Puts something that is about to be made on the list: kind `netns`, `folder`, `mount`, `process`
    (its pid), or `hugepages` (by how many the machine's pool grows)."""
    _say(f"+{kind} {name}")


def forget(kind, name):
    """Takes off the list what has been removed."""
    _say(f"-{kind} {name}")


def remove(kind, name):
    """Removes one thing of those kinds and whatever lives in it; silent where it is already gone.

    A network namespace's processes are killed with it: who made the namespace owns them.
    """
    if kind == "netns":
        kill_inhabitants(name)
        _quietly("ip", "netns", "delete", name)
    elif kind == "folder":
        shutil.rmtree(name, ignore_errors=True)
    elif kind == "mount":
        _quietly("umount", "-l", name)
    elif kind == "process":
        try:
            os.kill(int(name), signal.SIGKILL)
        except ProcessLookupError:
            pass
    elif kind == "hugepages":
        HUGE_PAGE_POOL.write_text(str(max(int(HUGE_PAGE_POOL.read_text()) - int(name), 0)))


def kill_inhabitants(namespace, patience_s=5):
    """Kills every process in `namespace` (a name below /run/netns) and waits until they are
    gone."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True,
                                check=False)
        pids = [int(word) for word in listed.stdout.split() if int(word) != os.getpid()]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def _quietly(*argv):
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _say(line):
    global _process
    with _lock:
        if _process is None or _process.poll() is not None:
            _process = subprocess.Popen([sys.executable, str(pathlib.Path(__file__).resolve())],
                                        stdin=subprocess.PIPE, start_new_session=True, text=True)
        _process.stdin.write(line + "\n")
        _process.stdin.flush()


def main():
    made = []
    for line in sys.stdin:  # ends when the last writer, the lab, is gone
        entry = line[1:].strip().split(" ", 1)
        if line[0] == "+":
            made.append(entry)
        elif entry in made:
            made.remove(entry)
    for kind, name in reversed(made):
        remove(kind, name)


if __name__ == "__main__":
    main()
