"""Each hostile message is stored or dead-lettered exactly once, and the bridge survives."""

from __future__ import annotations

import json
import os
import random
import string
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from headrace.models.deadletter import MAX_DEAD_LETTER_BYTES, Reason
from headrace.models.window import rfc3339
from headrace.stages.ingest_progress import sink_lag
from tests.support.devices import Publisher, reading
from tests.support.installation import Installation
from tests.support.processes import wait_for

#: Topic and payload, as published and as found in Kafka.
Message = tuple[str, bytes]

MAX_PAYLOAD = 4096
GOOD = "good"
#: Characters with a meaning in topics, JSON, line protocol or Flux.
_ID_MARKS = ", ='\"\\;{}[]()<>|&%$@!?*~^`:.äß漢🜁\u200b\u202e\ufeff\u2028"
_NUMBERS = (
    b"0", b"-0.0", b"1e308", b"-1e308", b"1e400", b"-1e400", b"5e-324", b"1e-400", b"NaN",
    b"Infinity", b"-Infinity", b"nan", b"0x10", b"1_000", b"01", b"+1", b".5", b"1.", b"1e",
    b"9223372036854775808", b"1" + b"0" * 400, b"1" + b"0" * 2000, b'"1"', b"true", b"null",
    b"[1]", b"{}", b"1.7976931348623157e308", b"0.1" + b"0" * 300 + b"1",
)  # fmt: skip
_TIMES = (
    b"0", b"-1", b"1" + b"0" * 400, b"-1" + b"0" * 400, b"1.5", b'""', b'"now"', b"true", b"[]",
    b'"0000-00-00T00:00:00Z"', b'"9999-12-31T23:59:60Z"', b'"2026-01-01T00:00:00"', b'"\\u0000"',
    b'"2026-02-30T00:00:00Z"', b'"2026-01-01T00:00:00+99:99"', b"1e3", b"253402300800000",
)  # fmt: skip


class Hostile:
    """Generate hostile messages; one seed always gives the same messages.

    Parameters
    ----------
    base
        First level of the topics.
    seed
        The seed.
    """

    def __init__(self, base: str, seed: int) -> None:
        self._base = base
        self._random = random.Random(seed)  # noqa: S311
        self._number = 0
        self._payloads: list[Callable[[str], bytes]] = [
            self._noise, self._cut, self._flipped, self._nested, self._odd_number, self._odd_time,
            self._duplicate_key, self._nul, self._not_an_object, self._long, self._no_utf8,
            self._claims_another, self._wrong_case, self._good, self._marked, self._wide,
        ]  # fmt: skip

    def message(self) -> Message:
        """Return the next message."""
        self._number += 1
        device = self._device() if self._random.random() < 0.3 else f"g{self._number % 50}"
        payload = self._random.choice(self._payloads)(device)
        topic = f"{self._base}/{device}"
        if self._random.random() < 0.05:
            topic += "/status"
            payload = payload or b"x"
        return topic, payload

    def _device(self) -> str:
        chance = self._random
        kinds = (
            lambda: "",
            lambda: chance.choice(["x", "ü"]) * chance.choice([255, 256, 257, 1000]),
            lambda: "trailing\\",
            lambda: chance.choice(["a\\,b", "a\\ b", "a\\=b", " ", "  both ", ",", "=", '"', "'"]),
            lambda: chance.choice(["null", "0", "-1", "NaN", "true", "\\", "$SYS", "$share"]),
            lambda: "".join(
                chance.choice(string.ascii_letters + _ID_MARKS)
                for _ in range(chance.randint(1, 20))
            ),
        )
        return chance.choice(kinds)()

    def _content(self, device: str, **changes: Any) -> bytes:
        # The number makes each message unique.
        return json.dumps(reading(device, **{"fuel": self._number, **changes})).encode()

    def _replaced(self, device: str, name: str, value: bytes) -> bytes:
        content = self._content(device, **{name: "@"})
        return content.replace(b'"@"', value)

    def _good(self, device: str) -> bytes:
        return self._content(device)

    def _marked(self, device: str) -> bytes:
        return b"\xef\xbb\xbf" + self._content(device)

    def _wide(self, device: str) -> bytes:
        encoding = self._random.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
        return self._content(device).decode().encode(encoding)

    def _noise(self, device: str) -> bytes:
        del device
        return self._random.randbytes(self._random.randint(0, 100))

    def _cut(self, device: str) -> bytes:
        content = self._content(device)
        return content[: self._random.randrange(len(content))]

    def _flipped(self, device: str) -> bytes:
        content = bytearray(self._content(device))
        content[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)
        return bytes(content)

    def _nested(self, device: str) -> bytes:
        depth = self._random.choice([10, 500, 1500])
        opening, closing = self._random.choice([(b"[", b"]"), (b'{"a":', b"}")])
        nested = opening * (depth // len(opening)) + b"1" + closing * (depth // len(opening))
        if self._random.random() < 0.5:
            return nested
        return self._replaced(device, self._random.choice(["note", "fuel"]), nested)

    def _odd_number(self, device: str) -> bytes:
        name = self._random.choice(["lat", "lon", "temperature", "power", "load"])
        return self._replaced(device, name, self._random.choice(_NUMBERS))

    def _odd_time(self, device: str) -> bytes:
        return self._replaced(device, "time", self._random.choice(_TIMES))

    def _duplicate_key(self, device: str) -> bytes:
        content = self._content(device)
        extra = self._random.choice(
            [b'"fuel": "x"', b'"generatorID": "other"', b'"time": null', b'"load": 1e400']
        )
        return b"{" + extra + b", " + content[1:]

    def _nul(self, device: str) -> bytes:
        return self._random.choice(
            [
                self._content(device) + b"\0",
                b"\0" * self._random.randint(1, 64),
                self._content(device, note="\0"),
                self._content(f"{device}\0"),
            ]
        )

    def _not_an_object(self, device: str) -> bytes:
        return self._random.choice(
            [b"", b"null", b"[]", b"0", b'""', b"true", b"[" + self._content(device) + b"]"]
        )

    def _long(self, device: str) -> bytes:
        length = self._random.choice([MAX_PAYLOAD - 300, MAX_PAYLOAD, MAX_PAYLOAD + 1, 9000])
        if self._random.random() < 0.01:
            length = MAX_DEAD_LETTER_BYTES + 1
        return self._content(device, note="n" * length)

    def _no_utf8(self, device: str) -> bytes:
        broken = self._random.choice([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
        return self._replaced(device, "note", b'"' + broken + b'"')

    def _claims_another(self, device: str) -> bytes:
        return self._content(f"{device}x")

    def _wrong_case(self, device: str) -> bytes:
        return self._content(device).replace(b"generatorID", b"GeneratorID")


def publish(installation: Installation, count: int, seed: int) -> Counter[Message]:
    """Publish hostile and good messages at QoS 0 and 1; return the messages sent."""
    hostile = Hostile(installation.name, seed)
    chance = random.Random(seed)  # noqa: S311
    sent: Counter[Message] = Counter()
    good_topic = f"{installation.name}/{GOOD}"
    start = datetime.now(UTC)
    with Publisher(installation.backbone.mqtt_port) as publisher:
        for number in range(count):
            topic, payload = hostile.message()
            info = publisher.send(
                topic, payload, chance.randint(0, 1), retain=chance.random() < 0.02
            )
            if payload:
                # A message without payload only clears a retained message.
                sent[topic, payload] += 1
            if number % 10 == 0:
                time = start - timedelta(milliseconds=number)
                payload = json.dumps(reading(GOOD, fuel=number, time=rfc3339(time))).encode()
                info = publisher.send(good_topic, payload)
                sent[good_topic, payload] += 1
            if number % 500 == 0:
                info.wait_for_publish(60)
        # Once this arrives, all messages of the connection have arrived, also those at QoS 0.
        info = publisher.send(good_topic, b"last")
        sent[good_topic, b"last"] += 1
        info.wait_for_publish(60)
    return sent


def publish_on_odd_topics(installation: Installation) -> Counter[Message]:
    """Publish on topics that MQTT advises against; return the messages that the broker accepted."""
    taken: Counter[Message] = Counter()
    for mark in ("\0", "\n", "\x1b", "\x7f", "\x85", "\ufffe"):
        message = f"{installation.name}/a{mark}b", f"at {mark!r}".encode()
        over = threading.Event()
        with Publisher(installation.backbone.mqtt_port) as publisher:
            publisher.client.on_disconnect = lambda *_, over=over: over.set()
            publisher.client.on_publish = lambda *_, over=over: over.set()
            info = publisher.send(*message)
            assert over.wait(10), "the broker neither accepts nor refuses a topic"
            if info.is_published():
                taken[message] += 1
    return taken


def check_hostile(installation: Installation, count: int) -> None:
    seed = int(os.environ.get("HOSTILE_SEED") or random.SystemRandom().randrange(10**6))
    print(f"{count} hostile messages, HOSTILE_SEED={seed}")  # noqa: T201
    bridge = installation.worker("bridge", HEADRACE_MAX_PAYLOAD_BYTES=str(MAX_PAYLOAD))
    sink = installation.worker("sink", HEADRACE_MAX_PAYLOAD_BYTES=str(MAX_PAYLOAD))
    bridge.start()
    sink.launch()
    sent = publish(installation, count, seed) + publish_on_odd_topics(installation)
    port, topics = installation.bridge_port, installation.profile.topics
    wait_for(
        lambda: installation.metric(port, "headrace_bridge_delivered") >= sent.total(), 120, 0.5
    )
    wait_for(
        lambda: sink_lag(installation.kafka, topics.raw, installation.profile.sink_group) == 0, 120
    )
    # The bridge wrote each message once, to one of the topics.
    raw, letters = installation.records(topics.raw), installation.records(topics.dead_letter)
    by_bridge = [letter for letter in letters if "source" not in letter.headers]
    found = Counter(
        (record.headers["topic"].decode(), record.value) for record in (*raw, *by_bridge)
    )
    presence = installation.records(topics.status)
    expected: Counter[Message] = Counter()
    for (topic, payload), times in sent.items():
        expected[topic, payload[:MAX_DEAD_LETTER_BYTES]] += times
    assert found == expected
    assert not presence
    assert {letter.headers["reason"].decode() for letter in letters} <= set(Reason)
    # The sink wrote each reading as a point or a dead letter.
    by_sink = [letter for letter in letters if "source" in letter.headers]
    points = installation.points("fuel")
    assert len(points) + len(by_sink) == len(raw)
    refused = Counter(letter.value for letter in by_sink)
    written = Counter(
        (content["generatorID"], float(content["fuel"]))
        for content in map(json.loads, (Counter(r.value for r in raw) - refused).elements())
    )
    assert Counter((device, value) for device, _, value in points) == written
    good = sum(device == GOOD for device, _, _ in points)
    assert good == len(range(0, count, 10))
    # Both workers still run as the processes that the test started.
    for worker, metrics in ((bridge, port), (sink, installation.sink_port)):
        assert worker.alive, worker.tail()
        assert installation.healthy(metrics)
        assert "Traceback" not in worker.log.read_text()
    print(  # noqa: T201
        f"{sent.total()} sent: {len(raw)} stored, {len(by_bridge)} rejected by the bridge, "
        f"{len(by_sink)} by the sink"
    )


def test_a_thousand_hostile_messages_are_stored_or_rejected_once(
    installation: Installation,
) -> None:
    check_hostile(installation, 1_000)


@pytest.mark.long
def test_a_hundred_thousand_hostile_messages_are_stored_or_rejected_once(
    installation: Installation,
) -> None:
    check_hostile(installation, 100_000)
