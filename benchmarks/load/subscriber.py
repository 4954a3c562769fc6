"""``python -m benchmarks.load.subscriber`` receives readings and only acknowledges them.

It measures the rate of the broker alone. All packets have the same length, so slices of the
stream give the packet ids without parsing single packets.
"""

from __future__ import annotations

import argparse
import json
import time

from benchmarks.load.packets import connect, subscribe

__all__: list[str] = []

#: Bytes needed to read the length of a packet.
_ENOUGH = 128
_PAUSE_SECONDS = 0.001


def main() -> None:
    """Subscribe, acknowledge, and print when the last reading arrived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    sock = connect(arguments.port, f"null-{arguments.prefix}", clean=False)
    subscribe(sock, f"{arguments.prefix}/+")
    print(json.dumps({"ready": True}), flush=True)
    rest = b""
    received = 0
    size = at = 0
    while received < arguments.count:
        # Read many packets at once: waking up for each would cost more than everything else.
        time.sleep(_PAUSE_SECONDS)
        data = sock.recv(1 << 18)
        if not data:
            msg = "the broker has closed the connection"
            raise ConnectionError(msg)
        data = rest + data
        if not size:
            if len(data) < _ENOUGH:
                rest = data
                continue
            size, at = _layout(data)
        whole = len(data) // size
        ids = whole * size
        acks = bytearray(b"\x40\x02\x00\x00" * whole)
        acks[2::4] = data[at:ids:size]
        acks[3::4] = data[at + 1 : ids : size]
        sock.sendall(acks)
        received += whole
        rest = data[ids:]
    ended = time.monotonic()
    print(json.dumps({"ended": ended, "received": received}), flush=True)


def _layout(data: bytes) -> tuple[int, int]:
    """Return the length of a packet and the position of its packet id."""
    length, body = data[1], 2
    if length & 0x80:
        length, body = length & 0x7F | data[2] << 7, 3
    topic = int.from_bytes(data[body : body + 2], "big")
    return body + length, body + 2 + topic


if __name__ == "__main__":
    main()
