"""Matching of two folders (images, labels) to cases and channels by file names only; reads no images."""
