"""Studies: variants are trained with several seeds, and compared on the same samples.

``lm4ve try`` trains heads on stored tokens, ``lm4ve ablate`` whole configs. A study is a
list of jobs (:mod:`.job`); a job is done when its result is in the store (:mod:`.store`);
the others run in processes, on GPUs or on a cluster (:mod:`.pool`, :mod:`.slurm`).
"""
