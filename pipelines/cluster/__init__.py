"""Ray apart from training: connecting, resources, work on many workers."""
