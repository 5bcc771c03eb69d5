"""Deliveries from the journal: a real broker killed and started again, a web server that refuses for a while."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orinspect_edge_runtime.watch.config import JournalConfig, MqttConfig, TriggerConfig, WebhookConfig
from orinspect_edge_runtime.watch.event import Event
from orinspect_edge_runtime.watch.forwarder import Forwarder
from orinspect_edge_runtime.watch.journal import Journal
from orinspect_edge_runtime.watch.mqtt import Mqtt
from orinspect_edge_runtime.watch.trigger import Trigger
from orinspect_edge_runtime.watch.webhook import Webhook

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


def wrote(journal: Journal, count: int) -> list[str]:
    made = [
        Event(uuid.uuid4().hex, 0, time.time(), "x", n, "accept", 1.0, 2.0, 3.0, "r", "a", "b") for n in range(count)
    ]
    journal.write(made)
    return [event.id for event in made]


def wait_for(condition: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    pytest.importorskip("paho.mqtt", reason="the extra `watch` is not installed")
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "port").write_text(str(port))
    file, started = tmp_path / "mosquitto.conf", list[subprocess.Popen[bytes]]()
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([str(MOSQUITTO), "-c", str(file)], stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_broker_that_is_killed_loses_nothing(tmp_path: Path, broker: Callable[[], subprocess.Popen[bytes]]) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    port = int((tmp_path / "port").read_text())
    got, states, joined = list[str](), list[str](), threading.Event()

    def message(client: Any, data: Any, told: Any) -> None:
        if told.topic == "line/state":
            states.append(told.payload.decode())
        else:
            got.append(json.loads(told.payload)["id"])

    watcher: Any = Client(CallbackAPIVersion.VERSION2)
    watcher.reconnect_delay_set(0.1, 0.2)
    watcher.on_message = message
    watcher.on_connect = lambda client, *_: client.subscribe("line/#", qos=1)
    watcher.on_subscribe = lambda *_: joined.set()
    journal = Journal(JournalConfig(str(tmp_path / "j.sqlite")))
    first = broker()
    watcher.connect_async("127.0.0.1", port)
    watcher.loop_start()
    assert joined.wait(60)
    mqtt = Mqtt(MqttConfig("127.0.0.1", port, "line"))
    forwarder = Forwarder("mqtt", tmp_path / "j.sqlite", mqtt.deliver)
    before = wrote(journal, 100)
    wait_for(lambda: set(before) <= set(got))
    joined.clear()
    first.kill()
    first.wait()
    during = wrote(journal, 100)
    wait_for(lambda: bool(forwarder.trouble))
    broker()
    assert joined.wait(60)
    after = wrote(journal, 100)
    wait_for(lambda: forwarder.delivered == 300)
    wait_for(lambda: set(after) <= set(got))
    assert set(after) | set(before) <= set(got)
    # Those that the broker took before our subscriber was back are the broker's affair; the sink had them acknowledged.
    assert forwarder.delivered == len(before) + len(during) + len(after)
    forwarder.close(time.monotonic() + 10)
    mqtt.close()
    wait_for(lambda: states[-1:] == ["offline"])
    assert "online" in states
    watcher.loop_stop()


@pytest.fixture
def listener(tmp_path: Path, broker: Callable[[], subprocess.Popen[bytes]]) -> Iterator[Any]:
    """A client of the broker that collects (topic, payload, retained) in `got`."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    broker()
    joined, client = threading.Event(), Client(CallbackAPIVersion.VERSION2)
    made: Any = client
    made.got = []
    made.on_message = lambda _, __, told: made.got.append(
        (told.topic, told.payload.decode(errors="replace"), told.retain)
    )
    made.on_connect = lambda *_: client.subscribe("#", qos=1)
    made.on_subscribe = lambda *_: joined.set()
    client.connect_async("127.0.0.1", int((tmp_path / "port").read_text()))
    client.loop_start()
    assert joined.wait(60)
    yield made
    client.disconnect()
    client.loop_stop()


def test_discovery_alarms_and_the_state_are_there_for_who_comes_later(tmp_path: Path, listener: Any) -> None:
    port = int((tmp_path / "port").read_text())
    mqtt = Mqtt(MqttConfig("127.0.0.1", port, "hall 1/line", discovery="homeassistant"))
    mqtt.deliver([json.dumps({"outcome": "alarm", "error": "camera black"}), json.dumps({"outcome": "reject"})])
    wait_for(lambda: any(topic == "hall 1/line/verdict" for topic, *_ in listener.got))
    mqtt.close()
    wait_for(lambda: ("hall 1/line/state", "offline", False) in listener.got)
    listener.got.clear()
    listener.unsubscribe("#")
    listener.subscribe("#", qos=1)
    wait_for(lambda: len(listener.got) == 6)
    kept = {topic: payload for topic, payload, retained in listener.got if retained}
    assert kept.pop("hall 1/line/state") == "offline"
    assert json.loads(kept.pop("hall 1/line/alarm"))["error"] == "camera black"
    names = ("sensor/hall_1_line/outcome", "sensor/hall_1_line/score", "sensor/hall_1_line/latency")
    assert sorted(kept) == sorted(
        f"homeassistant/{name}/config" for name in (*names, "binary_sensor/hall_1_line/alarm")
    )
    told = [json.loads(content) for content in kept.values()]
    assert len({one["unique_id"] for one in told}) == 4
    assert {one["availability_topic"] for one in told} == {"hall 1/line/state"}


def test_a_message_is_a_trigger_and_a_retained_one_is_not(tmp_path: Path, listener: Any) -> None:
    port = int((tmp_path / "port").read_text())
    listener.publish("line/trigger", "left", qos=1, retain=True).wait_for_publish(60)
    asked = Trigger(TriggerConfig(debounce_ms=0.0, late_s=60.0), ("left",))
    mqtt = Mqtt(MqttConfig("127.0.0.1", port, "line"), asked)
    mqtt.start()
    wait_for(lambda: any(topic == "line/state" for topic, *_ in listener.got))
    for payload in (b"", b"left", b"up", b"\xff"):
        listener.publish("line/trigger", payload, qos=1).wait_for_publish(60)
    # The broker keeps the order: once this one has come all have.
    listener.publish("line/trigger", b" left ", qos=1).wait_for_publish(60)
    wait_for(lambda: asked.fired == 3)
    shots = [asked.match(time.time() + 60) for _ in range(4)]
    assert [(shot.recipe, shot.by) if shot else None for shot in shots] == [
        ("", "mqtt"),
        ("left", "mqtt"),
        ("left", "mqtt"),
        None,
    ]
    mqtt.close()


def test_a_broker_that_was_never_there_stops_nobody(tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt", reason="the extra `watch` is not installed")
    journal = Journal(JournalConfig(str(tmp_path / "j.sqlite")))
    wrote(journal, 5)
    mqtt = Mqtt(MqttConfig("127.0.0.1", 9, timeout_s=0.2))
    forwarder = Forwarder("mqtt", tmp_path / "j.sqlite", mqtt.deliver)
    wait_for(lambda: bool(forwarder.trouble))
    assert forwarder.delivered == 0
    forwarder.close(time.monotonic() + 10)
    mqtt.close()


class Receiver(BaseHTTPRequestHandler):
    """Refuses the first three posts."""

    refused, got = 0, list[str]()

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if Receiver.refused < 3:
            Receiver.refused += 1
            self.send_error(503)
            return
        Receiver.got.append(content["id"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_webhook_gets_every_verdict_in_order_also_after_a_restart(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    journal, file = Journal(JournalConfig(str(tmp_path / "j.sqlite"))), tmp_path / "j.sqlite"
    hook = Webhook(WebhookConfig(f"http://127.0.0.1:{server.server_port}/"))
    sent = wrote(journal, 40)
    forwarder = Forwarder("webhook", file, hook.deliver)
    wait_for(lambda: forwarder.delivered == 40)
    forwarder.close(time.monotonic() + 10)
    sent += wrote(journal, 3)
    again = Forwarder("webhook", file, hook.deliver)
    wait_for(lambda: again.delivered == 3)
    again.close(time.monotonic() + 10)
    server.shutdown()
    server.server_close()
    assert Receiver.refused == 3
    assert Receiver.got == sent
