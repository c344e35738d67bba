"""Image files on disk: finding them, and checking that they are whole."""
