"""Looking back: counting what became of readings, and sending them through again."""
