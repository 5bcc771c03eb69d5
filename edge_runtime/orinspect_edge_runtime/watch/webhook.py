"""Verdicts to a URL, one POST of JSON each."""

from __future__ import annotations

from orinspect_edge_runtime.watch.config import WebhookConfig


class Webhook:
    """Posts verdicts; whatever is not answered with 2xx raises."""

    def __init__(self, config: WebhookConfig) -> None:
        self._config = config

    def deliver(self, payloads: list[str]) -> None:
        """Post each. Raises OSError (urllib's errors are some)."""
        from urllib.request import Request, urlopen

        for payload in payloads:
            head = {"Content-Type": "application/json"}
            request = Request(self._config.url, payload.encode(), head, method="POST")
            with urlopen(request, timeout=self._config.timeout_s):
                pass

    def close(self) -> None:
        """Nothing is kept open."""
