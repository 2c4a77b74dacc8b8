# The ViT with its frozen block, under the name that the tests use.
_base_ = './vit.py'
