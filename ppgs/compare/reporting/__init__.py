"""A comparison as tables, JSON, figures and the HTML report.

`columns` is the registry of statistics: what each is called and how it is formatted in every medium.
"""
