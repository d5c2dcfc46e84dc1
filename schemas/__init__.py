"""The contracts that producers, workers and consumers share: Avro schemas, topics, and the engine card."""
