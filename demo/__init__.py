"""The demo: an embedded Kafka, real data as feature events, the worker, and a report of what came of it."""
