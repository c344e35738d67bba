"""The monitor's panels, one module for each region of the screen."""
