"""What the documents tell to type, typed on two hosts that have their own network and their own /etc, /run,
/dev/shm, /usr/local and /var/lib, and share /srv/vms.

Not responsible for which commands those are: operations_test.py, documents_test.py.
"""

import pathlib
import shlex
import shutil
import subprocess
import tempfile
import unittest

import support
from lab import checker, guest, releases
from lab.host import Programs
from lab.network import Network
from support import await_that

ADDRESSES = {"a": "10.0.0.7", "b": "10.0.0.8"}  # as the documents have them
GUEST = guest.Parameters(files_mib=32, check_mib=128)
_PRIVATE = """
set -e
for folder in /etc /usr/local /srv /var/lib; do
  mkdir -p {scratch}$folder/upper {scratch}$folder/work
  mount -t overlay -o lowerdir=$folder,upperdir={scratch}$folder/upper,workdir={scratch}$folder/work \
    overlay $folder
done
mkdir -p /etc/postcopy /srv/vms
getent group kvm >/dev/null || echo kvm:x:994: >>/etc/group  # as udev's package does
mount --bind {shared} /srv/vms
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
echo ready
exec sleep infinity
"""


class Shell:
    """Runs commands on one host; a context manager."""

    def __init__(self, network, host, folder, environment):
        self._environment = environment
        self._log = folder / f"{host}.log"
        scratch = folder / host
        scratch.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(scratch)], check=True)
        self._scratch = scratch
        private = _PRIVATE.format(scratch=shlex.quote(str(scratch)),
                                  shared=shlex.quote(str(folder / "shared")))
        self._holder = subprocess.Popen(
            network.exec_argv(host, ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                                     private]), stdout=subprocess.PIPE, text=True)
        self._started = []
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            raise unittest.SkipTest("missing: overlay file systems")

    def _argv(self, text):
        return ["nsenter", "--target", str(self._holder.pid), "--mount", "--net",
                "bash", "-euo", "pipefail", "-c", text]

    def run(self, text):
        """What the commands print; the test fails with it if one of them does."""
        done = subprocess.run(self._argv(text), env=self._environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=120, check=False)
        if done.returncode != 0:
            raise AssertionError(f"exit code {done.returncode} of\n{text}\n{done.stdout}\n"
                                 f"{self.log()}")
        return done.stdout

    def begin(self, program):
        """Starts a program that stays; its output goes to the host's log."""
        with open(self._log, "a") as log:
            self._started.append(subprocess.Popen(
                self._argv(f"exec {program}"), env=self._environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log))

    def log(self):
        """What the programs that stay have said."""
        return self._log.read_text()

    def close(self):
        for process in (*self._started, self._holder):
            process.kill()
            process.wait()
        self._holder.stdout.close()
        subprocess.run(["umount", "-l", str(self._scratch)], check=True)


class ManualTest(unittest.TestCase):
    def setUp(self):
        support.require("nsenter", "unshare")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pcop-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        (self.folder / "shared").mkdir()
        with open(self.folder / "shared/web1.raw", "wb") as disk:
            disk.truncate(64 << 20)
        self.network = self.enterContext(Network())
        environment = self.environment()
        self.shells = {}
        for host in self.network.hosts:
            self.shells[host] = Shell(self.network, host, self.folder, environment)
            self.addCleanup(self.shells[host].close)

    def environment(self):
        """The programs as their packages would install them."""
        programs = Programs.built()
        bin_folder = self.folder / "bin"
        bin_folder.mkdir()
        qemu = releases.of_hosts(self.network.hosts)["a"]
        for name, path in (("uffd-server", programs.daemon), ("postcopyctl", programs.ctl)):
            (bin_folder / name).symlink_to(path)
        words = [qemu.program, *(word for folder in qemu.firmware for word in ("-L", folder))]
        (bin_folder / "qemu-system-x86_64").write_text(
            f"#!/bin/sh\nexec {shlex.join([shutil.which(words[0]), *words[1:]])} \"$@\"\n")
        (bin_folder / "qemu-system-x86_64").chmod(0o755)
        return {"PATH": f"{bin_folder}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LD_LIBRARY_PATH": str(programs.hook.parent)}

    def adapted(self, text):
        """The manual's commands with this network's addresses, and a guest that needs no disk."""
        image = guest.image()
        for host, address in ADDRESSES.items():
            text = text.replace(address, self.network.address(host))
        boot = ["-kernel", image.kernel, "-initrd", image.initramfs,
                "-append", GUEST.command_line()]
        return text.replace("-display none", f"-display none {shlex.join(map(str, boot))}")

    def start_daemon(self, host, command="uffd-server"):
        """Starts it as the service manager would, or with `command`; returns when it answers."""
        self.shells[host].begin(command)
        try:
            await_that("the daemon listens", lambda: self.answers(host))
        finally:
            print(self.shells[host].log())

    def answers(self, host):
        try:
            return self.shells[host].run(f"postcopyctl --daemon {self.network.address(host)} list")
        except AssertionError:
            return ""

    def await_guest(self):
        def boots():
            try:
                return checker.status(self.network, GUEST.address, timeout_s=1)
            except support.LabError:
                return None
        await_that("the guest has booted", boots, timeout_s=60)

    def errors(self):
        return checker.wait_full_passes(self.network, GUEST.address, 1).errors
