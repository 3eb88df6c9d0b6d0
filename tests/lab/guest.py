"""Builds the guest: Debian's cloud kernel and an initramfs with busybox, nginx, memcached and the
checker.

`image()` gives the two files, from the cache when their inputs have not changed; `Parameters` is
what one guest is told on its kernel's command line. How a guest is started says qemu.py; what it
does at boot says guest/init.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import tempfile

from . import packages
from .commands import LabError, run
from .content import FILE_BYTES
from .initramfs import Archive

_SOURCES = pathlib.Path(__file__).resolve().parent / "guest"
_MODULES = ["virtio_pci", "virtio_net", "virtio_balloon"]
_DEVICE_MODULES = ["virtio_blk", "virtio_scsi", "sd_mod", "virtio-rng", "virtio_console", "virtio_mem",
                   "pvpanic-mmio", "pvpanic-pci", "efivarfs"]  # only loaded where a guest has devices
_CFLAGS = ["-std=gnu11", "-O2", "-fno-tree-vectorize", "-static", "-Wall", "-Wextra", "-Werror"]
_LIBRARIES = {"memtouch": ["-lm"], "webapp": ["-lfcgi"]}


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What one guest does. The guest must have RAM for files_mib + check_mib and some 200 MiB; with a web
    site 64 MiB more and its files."""

    ip: str = "10.77.0.2/24"        # address and prefix length of its one network card
    files_mib: int = 256            # 64 KiB files, made at boot on tmpfs, served as /f/0, /f/1, …
    content: str = "random"         # of the files; or "realistic": guest/realistic.h
    check_mib: int = 128            # memory that the checker verifies over and over; 0: no checker
    check_pause_us: int = 4000      # the checker sleeps so long after each MiB
    check_order: str = "linear"     # or "random": another order of pages each pass
    checkers: int = 1               # processes that share check_mib, each on a vCPU of its own
    churn_mib: int = 0              # allocated and freed again, for ever; 0: not
    touch_mib: int = 0              # memory that is touched all the time, each touch timed; 0: none
    touch_order: str = "random"     # or "linear", "zipf"
    touch_writes: int = 30          # of 100 touches
    touch_pause_us: int = 1000      # sleep after each 1,024 touches
    memcached_mib: int = 0          # memcached on port 11211 has room for so many MiB of values; 0: none
    web_dirs: int = 0               # directories of the web site's files, 8.5 MiB each; 0: no web site
    devices: int = 0                # 1: drivers of more devices, and a shell that tests talk to (ask())
    disks: str = ""                 # names of disks with an ext4, e.g. "vda,sda": written and verified
    disk_mib: int = 1               # of each, that the disk's checker verifies over and over
    seed: int = 1                   # of the files' and the checked memory's content
    kernel_words: str = ""          # more of the kernel's command line, e.g. "mem=2G"

    @property
    def address(self):
        return self.ip.split("/")[0]

    @property
    def files(self):
        return self.files_mib * (1 << 20) // FILE_BYTES

    def command_line(self):
        """The kernel's command line."""
        if self.check_order not in ("linear", "random"):
            raise LabError(f"guest parameter check_order: {self.check_order!r} is neither linear "
                           "nor random")
        if self.touch_order not in ("linear", "random", "zipf"):
            raise LabError(f"guest parameter touch_order: {self.touch_order!r} is neither linear, "
                           "random nor zipf")
        if self.content not in ("random", "realistic"):
            raise LabError(f"guest parameter content: {self.content!r} is neither random nor "
                           "realistic")
        own = " ".join(f"{field.name}={getattr(self, field.name)}"
                       for field in dataclasses.fields(self) if field.name != "kernel_words")
        return f"console=ttyS0 quiet panic=-1 mitigations=off nokaslr {self.kernel_words} {own}"


@dataclasses.dataclass(frozen=True)
class Image:
    kernel: pathlib.Path
    initramfs: pathlib.Path


def image(cache=None):
    """The guest's kernel and initramfs in the cache, built when an input has changed.

    Downloads kernel, nginx and memcached the first time. Several processes may call it at once: one builds,
    the others wait. The files stay valid after the call: they are never changed, only added.
    LabError names the step that failed.
    """
    cache = pathlib.Path(cache) if cache else packages.cache_directory()
    with packages.CacheLock(cache):
        kernel_package = packages.kernel_package(cache)
        kernel_tree = packages.unpacked(kernel_package, cache)
        nginx = packages.unpacked("nginx", cache) / "usr/sbin/nginx"
        memcached = packages.unpacked("memcached", cache) / "usr/bin/memcached"
        kernel = next((kernel_tree / "boot").glob("vmlinuz-*"))
        inputs = [nginx, memcached, busybox(), *_libraries_of(nginx, memcached), *sorted(_SOURCES.iterdir()),
                  pathlib.Path(__file__), kernel]
        initramfs = cache / f"initramfs-{_digest(inputs)}.cpio"
        if not initramfs.exists():
            _build(initramfs, kernel_tree, nginx, memcached)
    return Image(kernel, initramfs)


def busybox():
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path):
            return pathlib.Path(path)
    raise LabError("build the guest: /bin/busybox is missing; install busybox-static")


def _digest(paths):
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def libraries(program, folders=()):
    """The files that the loader maps for `program`, the loader itself included; it looks into `folders`
    first."""
    environment = dict(os.environ, LD_LIBRARY_PATH=":".join(map(str, folders))) if folders else None
    listed = run(["ldd", str(program)], what=f"list the libraries of {program}", env=environment)
    if absent := re.findall(r"(\S+) => not found", listed):
        raise LabError(f"list the libraries of {program}: not on this machine: {', '.join(absent)}")
    return [pathlib.Path(path) for path in sorted(set(re.findall(r"(/\S+) \(0x", listed)))]


def _libraries_of(*programs):
    return sorted({library for program in programs for library in libraries(program)})


def module_paths(kernel_tree, names):
    """Files of the named kernel modules, each after those that it needs, as modules.dep has them."""
    modules = next((kernel_tree / "lib/modules").iterdir())
    if not (modules / "modules.dep").exists():
        run(["depmod", "-b", str(kernel_tree), modules.name], what=f"depmod {modules.name}")
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        needs[path] = needed.split()
    ordered = []
    for name in names:
        path = next((p for p in needs if p.endswith(f"/{name}.ko")), None)
        if path is None:
            raise LabError(f"build the guest: kernel {modules.name} has no module {name}")
        for each in [*reversed(needs[path]), path]:  # modules.dep lists the innermost last
            if modules / each not in ordered:
                ordered.append(modules / each)
    return ordered


def compiled(name, folder):
    """Compiles guest/`name`.c into `folder` and returns the program's bytes."""
    program = pathlib.Path(folder) / name
    run(["gcc", *_CFLAGS, "-o", str(program), str(_SOURCES / f"{name}.c"), *_LIBRARIES.get(name, [])],
        what=f"compile {name}.c")
    return program.read_bytes()


def _build(initramfs, kernel_tree, nginx, memcached):
    archive = Archive()
    archive.add_file("/init", (_SOURCES / "init").read_bytes(), executable=True)
    archive.add_file("/bin/busybox", busybox().read_bytes(), executable=True)
    archive.add_file("/bin/nginx", nginx.read_bytes(), executable=True)
    archive.add_file("/bin/memcached", memcached.read_bytes(), executable=True)
    archive.add_file("/etc/nginx.conf", (_SOURCES / "nginx.conf").read_bytes())
    archive.add_file("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    archive.add_file("/etc/group", b"root:x:0:\n")
    for library in _libraries_of(nginx, memcached):
        archive.add_file(str(library), library.read_bytes(), executable=True)
    archive.add_file("/bin/disk", (_SOURCES / "disk").read_bytes(), executable=True)
    base = module_paths(kernel_tree, _MODULES)
    more = [module for module in module_paths(kernel_tree, _DEVICE_MODULES) if module not in base]
    for module in (*base, *more):
        archive.add_file(f"/modules/{module.name}", module.read_bytes())
    for name, order in (("order", base), ("devices", more)):
        archive.add_file(f"/modules/{name}", "".join(f"{module.name}\n" for module in order).encode())
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("mkfiles", "memcheck", "diskcheck", "outb", "memtouch", "mkwebfiles", "webapp"):
            archive.add_file(f"/bin/{name}", compiled(name, scratch), executable=True)
    fresh = initramfs.with_suffix(".new")
    fresh.write_bytes(archive.finish())
    os.rename(fresh, initramfs)
