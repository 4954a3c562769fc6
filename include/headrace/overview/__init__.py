"""What a person looks at first: how the windows of a day are, and which alarms stand."""
