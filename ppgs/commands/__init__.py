"""One request to one result per command. Nothing here prints."""
