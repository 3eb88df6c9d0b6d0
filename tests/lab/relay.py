"""A link with a delay between two hosts: a TUN device in each, and a process that passes packets on
between them, each half of the round trip after it came (lab-relay; relay/).

A route to the other host's own address leads over it, so no program has to be told, and TCP runs from
end to end with its own buffers and congestion control. The packets of a delayed link are handled on the
relay's time of the processor, not on the sender's.
"""

import fcntl
import json
import select
import signal
import struct
import subprocess

from . import native
from .commands import LabError, run

DEVICE = "delay0"
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN_NO_PI_VNET_HDR = 0x0001 | 0x1000 | 0x4000
_TUN_F_CSUM_TSO4_TSO6 = 0x01 | 0x02 | 0x04  # 64 KiB pass as one packet
_QUEUE_PACKETS = 4000                       # between the kernel and the relay: more than a burst


class Relay:
    """The link. start() makes it, stop() or kill() ends it, with its devices and routes. For one thread.

    The process lives in the first host's namespace, so that the network's clean-up finds it in any case.
    """

    def __init__(self, network, round_trip_ms):
        self._network, self._round_trip_ms = network, round_trip_ms
        self._process = None

    def start(self, timeout_s=10):
        """Returns when packets pass. LabError if that is not so after `timeout_s`."""
        program = native.program("lab-relay", "relay", "POSTCOPY_LAB_RELAY")
        hosts = self._network.hosts
        devices = [self._network.inside(host, _open_device) for host in hosts]
        try:
            first, second = (device.fileno() for device in devices)
            self._process = subprocess.Popen(
                self._network.exec_argv(hosts[0], [
                    program, "--delay-us", round(self._round_trip_ms * 500), "--first", first,
                    "--second", second]),
                pass_fds=(first, second), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        finally:
            for device in devices:
                device.close()
        try:
            told, _, _ = select.select([self._process.stdout], [], [], timeout_s)
            if not told or self._process.stdout.readline() != "started\n":
                raise LabError("start the relay: it does not say that it runs")
            for host, other in (hosts, hosts[::-1]):
                run(["ip", "-n", self._network.namespace(host), "-batch", "-"],
                    stdin=f"link set {DEVICE} up txqueuelen {_QUEUE_PACKETS}\n"
                          f"route add {self._network.address(other)}/32 dev {DEVICE} "
                          f"src {self._network.address(host)}\n",
                    what=f"route host {host}'s traffic over the relay")
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, timeout_s=10):
        """Ends the link and returns its counts (lab-relay --help). LabError if the relay had failed."""
        self._process.send_signal(signal.SIGTERM)
        try:
            output, words = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"stop the relay: still running after {timeout_s} s") from None
        if self._process.returncode != 0:
            raise LabError(f"relay packets: {words.strip() or self._process.returncode}")
        return json.loads(output)

    def kill(self):
        """Ends the link, if that has not been done."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def _open_device():
    """In a host's namespace: a file that is its new TUN device, which goes with its last descriptor."""
    file = open("/dev/net/tun", "r+b", buffering=0)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN_NO_PI_VNET_HDR))
    fcntl.ioctl(file, _TUNSETOFFLOAD, _TUN_F_CSUM_TSO4_TSO6)
    return file
