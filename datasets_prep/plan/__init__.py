"""Which sample goes into which shard and split, decided before any sample is read."""
