"""Telemetry (R7): keeps the logs, metrics and traces of every service in OpenSearch, and answers questions about them.
It is in no order's path: with it down, orders flow, and Kafka keeps what it has not read."""
