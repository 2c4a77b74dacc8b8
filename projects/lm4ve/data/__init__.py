"""Files of data sets, for several tasks: damaged ones, folders and lists, shards, demos.

``integrity`` has the one policy for damaged files, ``ranks`` shares work out over the
processes of a training, ``image_files`` decodes and checks images, ``suffixes`` has their
endings, ``twins`` finds those that show the same, ``folder_listing`` and ``labels`` read
folders and lists, ``shards`` and ``shard_writing`` large files of many samples,
``generated`` and ``held_out`` serve the data that the demos make.
"""
