"""What a training run learns: its crops, losses, optimiser and validation; one file a task."""
