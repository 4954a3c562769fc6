"""``python -m benchmarks.load.publisher``: readings at QoS 1, as fast as asked or as they go.

The packets are laid out beforehand and sent by the thousand, so a reading costs the
generator next to nothing; how much, it says when it is done. Numbers come round after
60,000 readings, and with them the packet ids.

It sends as many as it is told on standard input, one total a line: all at once, or more
and more, which is how a load is kept at the rate that the other end can take.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import socket
import sys
import time

from benchmarks.load.packets import connect, publish
from benchmarks.readings import device, payload

__all__ = ["ROUND"]

#: Numbers, and packet ids, come round after so many readings.
ROUND = 60_000
#: Readings that may be on their way to the broker, unacknowledged.
_WINDOW = 20_000
_TICK_SECONDS = 0.002
_ACK_BYTES = 4


class Publisher:
    """Sends numbered readings over one connection.

    Parameters
    ----------
    sock
        The connection.
    prefix
        What the topics begin with.
    devices
        Size of the fleet.
    total
        Readings to send.
    rate
        Readings a second; 0 for as fast as it goes.
    """

    def __init__(
        self, sock: socket.socket, prefix: str, devices: int, total: int, rate: float
    ) -> None:
        packets = [
            publish(f"{prefix}/{device(n % devices)}", n + 1, payload(n % devices, n))
            for n in range(min(ROUND, total))
        ]
        self._size = len(packets[0])
        if any(len(packet) != self._size for packet in packets):
            msg = "the packets differ in length"
            raise ValueError(msg)
        self._data = memoryview(b"".join(packets))
        self._sock = sock
        self._total = total
        self._rate = rate
        self._allowed = 0
        self._sent_bytes = 0
        self._acked = 0
        self._input = b""

    @property
    def acked(self) -> int:
        """Readings that the broker has acknowledged."""
        return self._acked // _ACK_BYTES

    def run(self) -> float:
        """Wait for the word, send everything, and wait until it is acknowledged.

        Returns
        -------
        float
            When it began, on the monotonic clock.
        """
        self._sock.setblocking(False)  # noqa: FBT003 - socket's own signature
        while not self._allowed:
            self._listen(None)
        begun = time.monotonic()
        while self.acked < self._total:
            self._send(self._goal(time.monotonic() - begun))
            # To wake up for every acknowledgement would cost more than all the rest.
            time.sleep(_TICK_SECONDS)
            self._count()
            self._listen(0)
        return begun

    def _goal(self, elapsed: float) -> int:
        """How many readings may have been sent by now."""
        goal = min(self._total, self._allowed, self.acked + _WINDOW)
        return min(goal, int(elapsed * self._rate)) if self._rate else goal

    def _send(self, goal: int) -> None:
        """Send up to a goal, as far as the socket takes it."""
        length = len(self._data)
        try:
            while (left := goal * self._size - self._sent_bytes) > 0:
                at = self._sent_bytes % length
                self._sent_bytes += self._sock.send(self._data[at : min(length, at + left)])
        except BlockingIOError:
            return

    def _count(self) -> None:
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return
        if not data:
            msg = "the broker has closed the connection"
            raise ConnectionError(msg)
        self._acked += len(data)

    def _listen(self, seconds: float | None) -> None:
        """Take the newest total that standard input has, and wait for one that long."""
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return
        *lines, self._input = (self._input + os.read(sys.stdin.fileno(), 1 << 16)).split(b"\n")
        if lines:
            self._allowed = max(self._allowed, int(lines[-1]))


def main() -> None:
    """Send, and print what it cost as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    arguments = parser.parse_args()
    sock = connect(arguments.port, f"load-{arguments.prefix}")
    publisher = Publisher(
        sock, arguments.prefix, arguments.devices, arguments.count, arguments.rate
    )
    print(json.dumps({"ready": True}), flush=True)
    before = _cpu()
    begun = publisher.run()
    ended = time.monotonic()
    print(json.dumps({"begun": begun, "ended": ended, "cpu": _cpu() - before}), flush=True)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
