"""Verdicts to an MQTT broker (paho-mqtt 2): QoS 1, each acknowledged by the broker before it counts as delivered."""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.watch.config import MqttConfig
from orinspect_edge_runtime.watch.discovery import announcements
from orinspect_edge_runtime.watch.event import ALARM, CLEAR
from orinspect_edge_runtime.watch.trigger import Trigger

LOG = logging.getLogger("orinspect.watch")


class Mqtt:
    """A connection to a broker that is made again whenever it is lost. Raises ModuleNotFoundError without paho-mqtt.

    trigger: what messages on TOPIC/trigger fire, their payload being a recipe's name or empty.
    """

    def __init__(self, config: MqttConfig, trigger: Trigger | None = None) -> None:
        if importlib.util.find_spec("paho") is None:
            raise ModuleNotFoundError("No module named 'paho'", name="paho")
        self._config, self._trigger, self._state = config, trigger, f"{config.topic}/state"
        self._client: Any = None

    def start(self) -> None:
        """Begin to connect, in the background; a second call does nothing. paho takes a while to import."""
        if self._client is not None:
            return
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client: Any = Client(CallbackAPIVersion.VERSION2)
        # Its default waits up to two minutes after a broker came back.
        client.reconnect_delay_set(1, 10)
        client.on_connect, client.on_message = self._connected, self._message
        client.will_set(self._state, "offline", qos=1, retain=True)
        if self._config.user:
            client.username_pw_set(self._config.user, self._config.password)
        client.connect_async(self._config.host, self._config.port, keepalive=10)
        client.loop_start()
        self._client = client

    def deliver(self, payloads: list[str]) -> None:
        """Publish to TOPIC/verdict or TOPIC/alarm. Raises OSError: not connected, or not acknowledged in timeout_s."""
        self.start()
        end = time.monotonic() + self._config.timeout_s
        while not self._client.is_connected():
            if time.monotonic() > end:
                raise OSError(f"no connection to the broker {self._config.host}:{self._config.port}")
            time.sleep(0.02)
        for one in [self._publish(payload) for payload in payloads]:
            one.wait_for_publish(max(0.01, end - time.monotonic()))
            if not one.is_published():
                raise OSError("the broker did not acknowledge a verdict in time")

    def close(self) -> None:
        """Say `offline` and leave."""
        if self._client is not None:
            if self._client.is_connected():
                self._client.publish(self._state, "offline", qos=1, retain=True).wait_for_publish(0.3)
            self._client.disconnect()
            self._client.loop_stop()

    def _publish(self, payload: str) -> Any:
        if json.loads(payload)["outcome"] in (ALARM, CLEAR):
            return self._client.publish(f"{self._config.topic}/alarm", payload, qos=1, retain=True)
        return self._client.publish(f"{self._config.topic}/verdict", payload, qos=1)

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            LOG.warning("mqtt: the broker refuses: %s", reason)
            return
        client.publish(self._state, "online", qos=1, retain=True)
        if self._config.discovery:
            for topic, content in announcements(self._config):
                client.publish(topic, content, qos=1, retain=True)
        if self._trigger is not None:
            # QoS 0: a trigger that comes late, from a broker's queue, would show another part.
            client.subscribe(f"{self._config.topic}/trigger", qos=0)

    def _message(self, client: Any, data: Any, told: Any) -> None:
        # A retained message was not meant for this moment.
        if self._trigger is not None and not told.retain:
            fire(self._trigger.fire, told.payload)


def fire(trigger: Callable[[str | None, str], bool], payload: bytes) -> None:
    """Fire with the recipe that a message names; one that names none that is open is logged and asks for nothing."""
    try:
        trigger(payload.decode().strip() or None, "mqtt")
    except (UnicodeDecodeError, InputError) as error:
        LOG.warning("mqtt trigger: %s", error)
