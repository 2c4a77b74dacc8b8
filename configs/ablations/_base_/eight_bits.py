# A frozen block's products in 8 bits against bfloat16; a grid adds its config and rate.
seeds = 8
reference = 'bfloat16'
variants = {
    name: dict(options={'model.neck.block.dtype': name})
    for name in ('bfloat16', 'int8', 'float8')
}
