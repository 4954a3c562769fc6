"""Wire formats: what stands in MQTT, Kafka and InfluxDB. Pure, no I/O."""
