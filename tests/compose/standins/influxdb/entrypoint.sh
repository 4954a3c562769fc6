#!/bin/bash
# As root, makes the folders of the data, gives them to the server's user, and changes to it.
set -eu
if [ "$(id -u)" = 0 ]; then
    bolt=$(dirname "${INFLUXD_BOLT_PATH:-/var/lib/influxdb2/influxd.bolt}")
    engine=${INFLUXD_ENGINE_PATH:-/var/lib/influxdb2/engine}
    mkdir -p "$bolt" "$engine"
    chmod 700 "$bolt" "$engine"
    chown -R influxdb:influxdb "$bolt" "$engine"
    exec setpriv --reuid=influxdb --regid=influxdb --init-groups -- "$@"
fi
exec "$@"
