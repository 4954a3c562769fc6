#!/bin/sh
# The Java image's entry point: it could add certificate authorities, and then runs the command.
exec "$@"
