"""Verdicts to an MQTT broker (paho-mqtt 2): QoS 1, each acknowledged by the broker before it counts as delivered."""

from __future__ import annotations

import time
from typing import Any

from orinspect_edge_runtime.watch.config import MqttConfig


class Mqtt:
    """A connection to a broker that is made again whenever it is needed and not there."""

    def __init__(self, config: MqttConfig) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._config, self._state = config, f"{config.topic}/state"
        self._client: Any = Client(CallbackAPIVersion.VERSION2)
        # Its default waits up to two minutes after a broker came back.
        self._client.reconnect_delay_set(1, 10)
        self._client.on_connect = self._connected
        self._client.will_set(self._state, "offline", qos=1, retain=True)
        self._started = False
        if config.user:
            self._client.username_pw_set(config.user, config.password)

    def deliver(self, payloads: list[str]) -> None:
        """Publish to TOPIC/verdict. Raises OSError: not connected, or not acknowledged in timeout_s."""
        if not self._started:
            self._client.connect(self._config.host, self._config.port, keepalive=10)
            self._client.loop_start()
            self._started = True
        end = time.monotonic() + self._config.timeout_s
        while not self._client.is_connected():
            if time.monotonic() > end:
                raise OSError(f"no connection to the broker {self._config.host}:{self._config.port}")
            time.sleep(0.02)
        told = [self._client.publish(f"{self._config.topic}/verdict", one, qos=1) for one in payloads]
        for one in told:
            one.wait_for_publish(max(0.01, end - time.monotonic()))
            if not one.is_published():
                raise OSError("the broker did not acknowledge a verdict in time")

    def close(self) -> None:
        """Say `offline` and leave."""
        if self._started:
            if self._client.is_connected():
                self._client.publish(self._state, "offline", qos=1, retain=True).wait_for_publish(0.3)
            self._client.disconnect()
            self._client.loop_stop()

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not reason.is_failure:
            client.publish(self._state, "online", qos=1, retain=True)
