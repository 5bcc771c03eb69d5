"""Home Assistant's MQTT discovery: retained messages that make it show a line as a device by itself.

After https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery. Checked against a broker, not yet against a Home
Assistant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from orinspect_edge_runtime.watch.config import MqttConfig

# Component, name, topic below the line's, and what is read from the message there.
ENTITIES: dict[str, tuple[str, dict[str, str]]] = {
    "outcome": ("sensor", {"state_topic": "verdict", "value_template": "{{ value_json.outcome }}"}),
    "score": ("sensor", {"state_topic": "verdict", "value_template": "{{ value_json.score }}"}),
    "latency": (
        "sensor",
        {"state_topic": "verdict", "value_template": "{{ value_json.latency_ms }}", "unit_of_measurement": "ms"},
    ),
    "alarm": (
        "binary_sensor",
        {
            "state_topic": "alarm",
            "value_template": "{{ value_json.outcome }}",
            "payload_on": "alarm",
            "payload_off": "clear",
            "device_class": "problem",
        },
    ),
}


def announcements(config: MqttConfig) -> list[tuple[str, str]]:
    """Topic and JSON of each entity of a line. Its identifier is its topic, with _ for what is not allowed there."""
    line = re.sub(r"[^A-Za-z0-9_-]", "_", config.topic)
    device = {"identifiers": [f"orinspect_{line}"], "name": config.topic, "manufacturer": "orinspect"}
    return [
        (f"{config.discovery}/{component}/{line}/{name}/config", json.dumps(_entity(config, line, name, told, device)))
        for name, (component, told) in ENTITIES.items()
    ]


def _entity(
    config: MqttConfig, line: str, name: str, told: dict[str, str], device: Mapping[str, object]
) -> dict[str, object]:
    return {
        **told,
        "state_topic": f"{config.topic}/{told['state_topic']}",
        "availability_topic": f"{config.topic}/state",
        "payload_available": "online",
        "payload_not_available": "offline",
        "name": name,
        "unique_id": f"orinspect_{line}_{name}",
        "device": device,
    }
