"""Headrace: an IoT fleet's readings, from MQTT through Kafka into InfluxDB."""
