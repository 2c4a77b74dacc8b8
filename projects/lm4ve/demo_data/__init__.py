"""Makes the data of the demos, which need no download: arrays, scenes, questions, meshes.

A generator knows no task, no registry and no file of a data set. The tasks' data sets
call it, and write what it gives in the layout that they read. The same arguments give
the same data: trained weights of the demos come with lm4ve.
"""
