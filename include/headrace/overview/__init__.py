"""Overview for operators: the windows of a day and the active alarms."""
