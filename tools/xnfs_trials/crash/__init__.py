"""The crash explorer: which disks a power cut may leave, and whether each is one that the promise
allows. What judges a disk (`rawdisk`, `rawwalk`, `checker`, `model`) shares no code with XN.
"""
