"""HTTP beside the verdict loop: dashboard, REST, /metrics. In a thread of its own; the loop never waits for it."""
