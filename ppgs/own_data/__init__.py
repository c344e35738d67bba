"""Two folders, of images and of labels, as cases and channels of a dataset. By file names alone: reads no images."""
