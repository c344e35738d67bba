"""Training of one run by several processes: how they agree, and losses over a shared batch."""
