"""Overview for operators: the state of a day's windows, and the active alarms."""
