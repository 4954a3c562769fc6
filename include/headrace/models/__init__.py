"""Data formats in MQTT, Kafka and InfluxDB. No I/O."""
