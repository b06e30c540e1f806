"""Checkpoints in and out: names and arrays, knowing the config and not the modules."""
