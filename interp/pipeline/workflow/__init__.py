"""`interp run`: folders of images to a gallery, by the functions that the single commands call."""
