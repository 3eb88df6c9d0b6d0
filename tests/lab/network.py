"""Hosts as network namespaces: two (or n) hosts and a client on one switch.

    client ── switch ─┬─ host a: bridge br0 (10.77.0.11) ─ tap0 ─ QEMU
                      └─ host b: bridge br0 (10.77.0.12) ─ tap0 ─ QEMU

With delay() the two hosts are besides joined by a link that takes its time (relay.py); it has what they
themselves say to each other, the guest's and the client's traffic stays on the bridges.

All traffic stays inside namespaces whose names carry a prefix of this run, so several labs can run
side by side. Not responsible for the processes in them (qemu.py, load.py), except that clean-up
kills whatever is left inside.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import threading

from . import reaper, relay
from .commands import LabError, run

_PREFIX_LENGTH = 24
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x1002
_libc = ctypes.CDLL(None, use_errno=True)
_QUIET = """
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
for file in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 >"$file"; done
"""  # a kernel without IPv6 or br_netfilter lacks these files, and needs nothing


class Network:
    """A context manager: __enter__ makes the network, __exit__ removes all that lives in it.

    Between the two SIGTERM raises SystemExit in the main thread, so that clean-up runs (SIGINT
    raises KeyboardInterrupt anyway); when the process is killed the reaper cleans up. A killed
    process's leftovers are gone within seconds. Needs root; LabError says so. Not thread-safe while
    entering or leaving; the other calls are.
    """

    def __init__(self, hosts=("a", "b"), prefix=None, ipv6=False):
        """With `ipv6` the hosts have IPv6 addresses only; the guest and the client keep IPv4."""
        self.ipv6 = ipv6
        self.prefix = prefix or f"lab{os.getpid()}-{os.urandom(2).hex()}"
        self.hosts = tuple(hosts)
        self.client = f"{self.prefix}-client"
        self.client_address = "10.77.0.100"
        self._switch = f"{self.prefix}-switch"
        self._made = []
        self._shaped = set()
        self._relay = None
        self._stack = contextlib.ExitStack()
        if len(self.prefix) > _PREFIX_LENGTH:
            raise LabError(f"name a network: prefix {self.prefix} is longer than {_PREFIX_LENGTH}")

    def namespace(self, host):
        """The name of the host's (or, for "client", the client's) network namespace."""
        if host != "client" and host not in self.hosts:
            raise LabError(f"find host {host}: the network has {', '.join(self.hosts)}")
        return f"{self.prefix}-{host}"

    def address(self, host):
        """The host's own address, text."""
        number = 11 + self.hosts.index(host)
        return f"fd77::{number}" if self.ipv6 else f"10.77.0.{number}"

    def exec_argv(self, host, argv):
        """`argv` prefixed to run in the host's namespace; the pid started is the program's."""
        return ["ip", "netns", "exec", self.namespace(host), *map(str, argv)]

    def inside(self, host, function):
        """What `function()` returns, called in a thread inside the host's namespace: sockets and
        taps that it opens belong there. Passes on what it raises."""
        outcome = []

        def enter():
            try:
                with open(f"/run/netns/{self.namespace(host)}") as file:
                    if _libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                outcome.append((function(), None))
            except Exception as error:  # to be raised in the caller's thread
                outcome.append((None, error))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    def open_tap(self, host, tap):
        """A file that is the tap `tap` of the host, for a QEMU that may not open one by itself."""
        def attach():
            file = open("/dev/net/tun", "r+b", buffering=0)
            fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", tap.encode(), _IFF_TAP_NO_PI))
            return file
        return self.inside(host, attach)

    def add_tap(self, host, tap, multi_queue=False):
        """Another tap on the host's bridge, for a second QEMU there (tap0 exists)."""
        _ip(self.namespace(host), f"tuntap add {tap} mode tap{' multi_queue' if multi_queue else ''}\n"
                                  f"link set {tap} master br0 up")

    def shape(self, host, mbit):
        """Limits the host's link to `mbit` Mbit/s each way. Replaces an earlier limit. LabError after
        delay(): what goes over the relay would not be limited."""
        if self._relay:
            raise LabError(f"shape the link of host {host}: it is delayed, and not limited besides")
        self._shaped.add(host)
        limit = f"rate {mbit}mbit burst 256kb latency 50ms"
        for namespace, device in self._ends(host):
            run(["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf",
                 *limit.split()])

    def unshape(self, host):
        """Takes the limit away; nothing happens if there is none."""
        for namespace, device in self._ends(host):
            if " tbf " in run(["tc", "-n", namespace, "qdisc", "show", "dev", device]):
                run(["tc", "-n", namespace, "qdisc", "delete", "dev", device, "root"])
        self._shaped.discard(host)

    def delay(self, round_trip_ms):
        """Gives what the two hosts say to each other this round trip, until the network ends; the
        bandwidth is not limited. What was underway comes over the bridges still. LabError if a link is
        limited, or delayed already. Returns the Relay."""
        if self._shaped:
            raise LabError(f"delay the hosts' link: host {min(self._shaped)}'s is limited")
        if self._relay or len(self.hosts) != 2:
            raise LabError("delay the hosts' link: it is delayed already" if self._relay else
                           f"delay the hosts' link: there are {len(self.hosts)} hosts, not two")
        self._relay = relay.Relay(self, round_trip_ms).start()
        return self._relay

    def cut(self, host):
        """Takes the host's link down at the switch: nothing passes, and no end of TCP is told. LabError
        after delay(): the relay's packets do not pass the switch."""
        if self._relay:
            raise LabError(f"cut the link of host {host}: it is delayed")
        _ip(self._switch, f"link set port-{host} down")

    def restore(self, host):
        """Undoes cut()."""
        _ip(self._switch, f"link set port-{host} up")

    def reset(self, host):
        """Ends the TCP connections between the host itself and the other hosts, and tells both ends, as a
        firewall does that has lost its memory. Returns how many they were; 0 also where the kernel
        cannot: can_reset()."""
        others = " or ".join(f"dst {self.address(other)}" for other in self.hosts if other != host)
        text = run(self.exec_argv(host, ["ss", "-KHnt", "state", "connected", "exclude", "time-wait",
                                         f"( {others} )"]),
                   what=f"reset the connections of host {host}")
        return len(text.splitlines())

    def can_reset(self):
        """Whether this kernel can end connections for reset() (CONFIG_INET_DIAG_DESTROY)."""
        host = self.hosts[0]
        listener = self.inside(host, lambda: socket.create_server((self.address(host), 0)))
        with listener, self.inside(host, lambda: socket.create_connection(listener.getsockname())) as near:
            ended = run(self.exec_argv(host, ["ss", "-KHnt", f"( sport = :{near.getsockname()[1]} )"]),
                        what="try to end a connection")
        return bool(ended.strip())

    def filter(self, host, *ports):
        """From now on the host itself sends and takes TCP to these ports only, and what answers it, until the
        network ends; what its bridge carries for guests is not concerned. LabError without nftables."""
        allowed = ", ".join(map(str, ports))
        rules = "".join(f"""chain {hook} {{ type filter hook {hook} priority 0; policy drop;
            iif lo accept
            meta l4proto {{ icmp, ipv6-icmp }} accept
            ct state established,related accept
            tcp dport {{ {allowed} }} accept
        }}\n""".replace("iif lo", "oif lo" if hook == "output" else "iif lo") for hook in ("input", "output"))
        run(self.exec_argv(host, ["nft", "-f", "-"]), stdin=f"table inet lab {{\n{rules}}}\n",
            what=f"filter what host {host} sends and takes")

    def fix_neighbour(self, address, mac):
        """The client need not ask who has `address`: during seconds without an answer its kernel would
        refuse new connections at once."""
        _ip(self.client, f"neigh replace {address} lladdr {mac} nud permanent dev uplink")

    def bytes_sent(self, host):
        """Bytes of IP packets that the host itself has sent since it was made (headers included,
        those of segments that the network card would split counted once).

        Bridged traffic of its guest is not in it; traffic over the host's loopback is.
        """
        text = run(self.exec_argv(host, ["cat", "/proc/net/netstat"]))
        names, values = [line.split() for line in text.splitlines() if line.startswith("IpExt:")]
        return int(values[names.index("OutOctets")])

    def __enter__(self):
        try:
            if threading.current_thread() is threading.main_thread():
                previous = signal.signal(signal.SIGTERM, _exit_on_signal)
                self._stack.callback(signal.signal, signal.SIGTERM, previous)
            self._make(self._switch)
            _ip(self._switch, "link add name br0 type bridge forward_delay 0 stp_state 0\n"
                              "link set br0 up")
            for host in self.hosts:
                self._join(host, "uplink")
                _ip(self.namespace(host),
                    "link add name br0 type bridge forward_delay 0 stp_state 0\n"
                    "link set uplink master br0 up\n"
                    "link set br0 up\n" + self._host_address(host))
                self.add_tap(host, "tap0")
            self._join("client", "uplink")
            _ip(self.client, f"addr add {self.client_address}/24 dev uplink\nlink set uplink up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self._relay:
            self._relay.kill()
            self._relay = None
        while self._made:
            namespace = self._made.pop()
            reaper.remove("netns", namespace)
            reaper.forget("netns", namespace)
        self._stack.close()

    def _host_address(self, host):
        """What gives the host's bridge, which is made after this call, its address: a line for _ip()."""
        if not self.ipv6:
            return f"addr add {self.address(host)}/24 dev br0"
        for device in ("all", "default"):
            run(self.exec_argv(host, ["sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6"]),
                what=f"give host {host} IPv6")
        return f"addr add {self.address(host)}/64 dev br0 nodad"

    def _join(self, host, device):
        """Makes the host's namespace and a cable from `device` in it to a port of the switch."""
        namespace = self.namespace(host)
        self._make(namespace)
        _ip(self._switch, f"link add name port-{host} type veth "
                          f"peer name {device} netns {namespace}\n"
                          f"link set port-{host} master br0 up")

    def _make(self, namespace):
        reaper.note("netns", namespace)
        self._made.append(namespace)
        try:
            run(["ip", "netns", "add", namespace], what=f"make network namespace {namespace}")
        except LabError as error:
            raise LabError(f"{error}. The lab needs root with the right to make network namespaces "
                           "(CAP_SYS_ADMIN and CAP_NET_ADMIN)") from None
        _ip(namespace, "link set lo up")
        run(["ip", "netns", "exec", namespace, "sh", "-c", f"{{ {_QUIET} }} 2>/dev/null; true"],
            what=f"quieten network namespace {namespace}")

    def _ends(self, host):
        return [(self.namespace(host), "uplink"), (self._switch, f"port-{host}")]


def _ip(namespace, lines):
    run(["ip", "-n", namespace, "-batch", "-"], stdin=lines + "\n",
        what=f"set up network namespace {namespace}")


def _exit_on_signal(number, _frame):
    raise SystemExit(128 + number)
