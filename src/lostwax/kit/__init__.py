"""Plumbing that every service uses and that holds no word of the business: settings, PostgreSQL, outbox and relay,
the Kafka runner, HTTP, S3, logs, traces, orderly shutdown."""
