"""Objects that come as files: a folder, a ZIP archive, a CD or DVD.

`sources` finds files and archive members, `recognise` says what one is, `intake` puts its data set into the spool, `dicomdir` reads
what a medium says is on it, `importing` does it for whole trees. The role `folder` and `hilum import` are made of these.
"""
