"""What happens to a guest with disks and devices on its way from host a to b and back, besides the way.

Each is a function of a Rig whose cell names it; HAPPENINGS has them by the names of the table.
"""

import dataclasses
import os
import pathlib
import shutil

from lab.commands import await_that

_USER = "nobody"
_SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


def two_hops(rig, **boot):
    vm = rig.boot("a", **boot)
    rig.check(vm)
    for host in "ba":
        vm = rig.hop(vm, host)
        rig.check(vm)
    rig.finish(vm)


def vcpus_are_added(rig):
    """One before the first hop, one while memory arrives; both are there at every QEMU afterwards."""
    rig.changes["smp"] = "1,maxcpus=3"
    vm = rig.boot("a")

    def add(vm, number):
        empty = [each for each in vm.qmp.command("query-hotpluggable-cpus") if "qom-path" not in each]
        place = empty[-1]
        vm.qmp.command("device_add", driver=place["type"], id=f"cpu{number}", **place["props"])
        await_that("the guest knows the CPU", lambda: rig.ask(
            f"ls -d /sys/devices/system/cpu/cpu{number}").strip())
        rig.ask(f"echo 1 >/sys/devices/system/cpu/cpu{number}/online")
        await_that("the guest uses the CPU", lambda: cpus(rig) == number + 1)
        return ("-device", ",".join([place["type"], f"id=cpu{number}",
                                     *(f"{key}={value}" for key, value in place["props"].items())]))
    added = add(vm, 1)
    more = []
    vm = rig.hop(vm, "b", waiting=added, meanwhile=lambda b: more.extend(add(b, 2)))
    rig.check(vm)
    vm = rig.hop(vm, "a", waiting=(*added, *more))
    rig.check(vm)
    rig.test.assertEqual(cpus(rig), 3)
    rig.finish(vm)


def cpus(rig):
    return int(rig.ask("grep -c ^processor /proc/cpuinfo"))


def memory_kib(rig):
    return int(rig.ask("awk '/MemTotal/ { print $2 }' /proc/meminfo"))


def use_added_memory(rig):
    """The guest's kernel uses memory as soon as it is added."""
    words = f"{rig.parameters.kernel_words} memhp_default_state=online_movable"
    rig.parameters = dataclasses.replace(rig.parameters, kernel_words=words)


def dimm(rig):
    """Plugged before the first hop, and unplugged while memory arrives: the way back goes without."""
    rig.changes["added_mib"] = 128
    use_added_memory(rig)
    vm = rig.boot("a")
    before = memory_kib(rig)
    vm.qmp.command("object-add", **{"qom-type": "memory-backend-file", "id": "more", "size": 128 << 20,
                                    "share": True, "mem-path": _more(rig, "a")})
    vm.qmp.command("device_add", driver="pc-dimm", id="dimm0", memdev="more")
    await_that("the guest has more memory", lambda: memory_kib(rig) > before + (100 << 10))
    waiting = ("-object", f"memory-backend-file,id=more,size=128M,share=on,mem-path={_more(rig, 'b')}",
               "-device", "pc-dimm,id=dimm0,memdev=more")

    def unplug(vm):
        vm.qmp.command("device_del", id="dimm0")
        vm.qmp.wait_event("DEVICE_DELETED", timeout_s=60)
        vm.qmp.command("object-del", id="more")
    vm = rig.hop(vm, "b", waiting=waiting, meanwhile=unplug)
    rig.check(vm)
    rig.test.assertLess(abs(memory_kib(rig) - before), 4 << 10)
    vm = rig.hop(vm, "a")
    rig.check(vm)
    rig.finish(vm)


def _more(rig, host):
    return str(rig.stage.ram_folder / f"more-{rig.folder.name}-{host}")


def virtio_mem(rig):
    """Resized up and down while memory arrives, and as large as it was left on the way back."""
    rig.changes["added_mib"] = 256
    use_added_memory(rig)

    def words(host):
        return ("-object", f"memory-backend-file,id=vmem,size=256M,share=on,mem-path={_more(rig, host)}",
                "-device", "virtio-mem-pci,id=vm0,memdev=vmem,block-size=2M")
    vm = rig.boot("a", extra=words("a"))

    def resize(vm, mib):
        vm.qmp.command("qom-set", path="/machine/peripheral/vm0", property="requested-size",
                       value=mib << 20)
        await_that(f"virtio-mem has {mib} MiB", lambda: vm.qmp.command(
            "qom-get", path="/machine/peripheral/vm0", property="size") == mib << 20, timeout_s=90)

    def up_and_down(vm):
        resize(vm, 192)
        resize(vm, 64)
    resize(vm, 128)
    vm = rig.hop(vm, "b", waiting=words("b"), meanwhile=up_and_down)
    rig.check(vm)
    os.unlink(_more(rig, "a"))
    vm = rig.hop(vm, "a", waiting=words("a"))
    rig.check(vm)
    resize(vm, 256)
    rig.check(vm)
    rig.finish(vm)


def _for_user(rig):
    """What a QEMU of an ordinary user needs: the hook, the agent's socket and the images."""
    rig.user = _USER
    os.chmod(rig.stage.folder, 0o711)
    hook = str(shutil.copy(rig.stage.programs.hook, rig.stage.folder))
    rig.changes["hook"] = hook
    for host in rig.stage.hosts.values():
        host.options = ["--agent-group", "nogroup"]
        host.restart()
        rig.test.addCleanup(host.restart)
        rig.test.addCleanup(setattr, host, "options", [])


def ordinary_user(rig):
    _for_user(rig)
    rig.changes |= {"user": _USER, "extra": _SANDBOX}
    two_hops(rig)


def daemonized(rig):
    """QEMU changes its user and its root by itself, and leaves for the background. The daemons' sockets have
    the same paths there, so that its hook could come back to them."""
    _for_user(rig)
    root = rig.folder / "root"
    for host in rig.stage.hosts.values():
        inside = root / pathlib.Path(host.agent).relative_to("/")
        inside.parent.mkdir(parents=True)
        os.link(host.agent, inside)
    rig.changes |= {"daemonize": True, "extra": ("-runas", _USER, "-chroot", str(root))}
    two_hops(rig)


def filtered(rig):
    for host in rig.stage.hosts:
        rig.network.filter(host, 7700, 7701)
    two_hops(rig)


HAPPENINGS = {
    "two hops": two_hops,
    "vCPUs are added before and meanwhile": vcpus_are_added,
    "a dimm is plugged before, and unplugged meanwhile": dimm,
    "virtio-mem is resized both ways meanwhile": virtio_mem,
    "QEMU by an ordinary user in a sandbox": ordinary_user,
    "QEMU with -runas, -chroot and -daemonize": daemonized,
    "hosts with IPv6 only": two_hops,
    "hosts that filter all but ports 7700 and 7701": filtered,
}
