"""What file systems on XN have in common, whatever their format: none of it is in the kernel, none
of it belongs to one of them.

cache        which pages to give up, and when to write behind
naming       the keyed hash of a name
devices      device numbers of Linux
attributes   records of extended attributes
checking     what a checker hands back
"""
