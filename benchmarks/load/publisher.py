"""``python -m benchmarks.load.publisher`` sends readings at QoS 1, at a rate or at full speed.

It encodes the packets beforehand and sends thousands at once, so a reading costs almost no
CPU. At the end it prints its CPU seconds. Numbers and packet ids repeat after 60,000
readings.

Each line on standard input raises the total to send. The caller can send one final total, or
raise it step by step to keep the load at the rate of the receiver.
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

#: Numbers and packet ids repeat after this number of readings.
ROUND = 60_000
#: Maximum number of unacknowledged readings.
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
        First part of the topics.
    devices
        Size of the fleet.
    total
        Readings to send.
    rate
        Readings per second; 0 for full speed.
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
        """Wait for the first total, send everything, and wait until it is acknowledged.

        Returns
        -------
        float
            Start of sending, on the monotonic clock.
        """
        self._sock.setblocking(False)  # noqa: FBT003 - socket's own signature
        while not self._allowed:
            self._listen(None)
        begun = time.monotonic()
        while self.acked < self._total:
            self._send(self._goal(time.monotonic() - begun))
            # Waking up for every acknowledgement would cost more than everything else.
            time.sleep(_TICK_SECONDS)
            self._count()
            self._listen(0)
        return begun

    def _goal(self, elapsed: float) -> int:
        """Return how many readings may be sent by now."""
        goal = min(self._total, self._allowed, self.acked + _WINDOW)
        return min(goal, int(elapsed * self._rate)) if self._rate else goal

    def _send(self, goal: int) -> None:
        """Send readings up to a total, as far as the socket accepts them."""
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
        """Read the newest total from standard input; wait this number of seconds for one."""
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return
        *lines, self._input = (self._input + os.read(sys.stdin.fileno(), 1 << 16)).split(b"\n")
        if lines:
            self._allowed = max(self._allowed, int(lines[-1]))


def main() -> None:
    """Send the readings; print times and CPU seconds as JSON."""
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
