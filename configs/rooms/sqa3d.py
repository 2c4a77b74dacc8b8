# SQA3D's ScanQA baseline, 768 wide as in the paper of the blocks, without a block. The
# poses are learned too, as in the release's auxi.sh, whose 47.20 is the paper's baseline.
_base_ = [
    '../_base_/rooms/scanqa.py',
    '../_base_/rooms/scannet-sqa3d.py',
    '../_base_/rooms/steps_30e.py',
    '../_base_/rooms/runtime.py',
]

# The release's flag for the width, --hidden_size, leaves the attention of the pools at 256.
model = dict(
    text_encoder=dict(channels=768),
    fusion=dict(embed_dims=768),
    head=dict(hidden_channels=768),
    pose_head=dict(hidden_channels=768),
)
