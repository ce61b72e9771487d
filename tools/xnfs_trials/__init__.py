"""Trials: what shows that XN keeps its promises, as a product that anybody can point at a file
system of their own. The crash explorer (`crash`), and what attacks the kernel and its images.
"""
