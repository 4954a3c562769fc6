"""Values and rules: readings, windows, rows, alarms. No I/O, and no format of a store."""
