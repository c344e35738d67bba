"""What several test modules share and is no fixture."""
