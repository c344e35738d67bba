"""Matching of two folders (images, labels) to cases and channels by file names only; reads no images."""

# In the raw folder of such a dataset, beside its `dataset.json`: the files and answers that it was made from.
RECORD = "ppgs_folders.json"
