"""Pictures of samples, tokens and predictions, which hold arrays and no model.

``figures`` turns figures into arrays and files, ``pictures`` draws images and clips with
their tokens, ``solids`` points and boxes in 3-D, ``words`` the tokens of texts and
``rankings`` the best answers; ``visualizer`` sends pictures to MMEngine's backends.
"""
