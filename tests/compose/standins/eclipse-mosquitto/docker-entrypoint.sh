#!/bin/sh
# As root, gives everything below /mosquitto to the broker's user; the broker itself changes to it.
set -e
if [ "$(id -u)" = 0 ]; then
    chown -R mosquitto:mosquitto /mosquitto
fi
exec "$@"
