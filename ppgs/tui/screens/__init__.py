"""The monitor's screens: the main one, questions, and help."""
