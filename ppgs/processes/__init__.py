"""Child processes: signals across a fork, requests to stop, and pools that notice a worker's death."""
