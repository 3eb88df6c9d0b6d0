"""Talks to the shell of a guest with Parameters.devices, from the client's namespace.

The shell is a busybox one behind `nc` (guest/init): one connection, one script.
"""

import socket

from .commands import LabError

_PORT = 7


def ask(network, address, script, timeout_s=20):
    """Runs the `script` in the guest and returns what it prints. LabError: no answer in time."""
    def talk():
        with socket.create_connection((address, _PORT), timeout_s) as connection:
            connection.sendall(script.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            return answer.decode(errors="replace")
    try:
        return network.inside("client", talk)
    except OSError as error:
        raise LabError(f"ask the guest at {address} for {script!r}: {error}") from None


def tell(network, address, script, timeout_s=20):
    """Has the guest run the `script` in a second's time, and returns at once: for what ends the guest, or
    its answers. LabError: it did not take it."""
    ask(network, address, f"(sleep 0.2; {script}) >/dev/null 2>&1 </dev/null &", timeout_s)
