"""Forecast worker: feature events from Kafka, batches through an engine, forecasts back to Kafka, exactly once."""
