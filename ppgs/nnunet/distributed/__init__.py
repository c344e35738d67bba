"""Several processes that train one run: how they agree, and losses over a shared batch."""
