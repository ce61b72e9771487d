"""Damaged images: every field of every on-disk structure changed in eight ways, and what XN, FFS
and LFS make of it.

subject    the smallest images that have every structure, and who needs which of their blocks
fields     every field, taken from the declarations of the formats
verbs      the eight ways, each with the checksum left wrong or made right again
judge      one damaged image: an error, a repair, or a sound mount; anything else is a defect
limits     time and memory that one image may take
guided     combinations that reach new lines (coverage) of the reading code
campaign   all of it;   pages   docs/damage.md
"""

from xnfs_trials.damage.campaign import Report, run

__all__ = ["Report", "run"]
