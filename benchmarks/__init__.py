"""Speed as a measured property: every row against its goal, with the peers in the same run."""
