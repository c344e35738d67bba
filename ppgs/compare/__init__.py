"""Results of runs into statistics, tables, figures and a report.

Reads nnU-Net's and our own result folders; imports neither torch nor nnunetv2. NumPy, SciPy and Matplotlib are imported
by the modules that need them, so that importing this package costs nothing.
"""
