"""What every other layer stands on: errors, files, processes, the lock, versions, events."""
