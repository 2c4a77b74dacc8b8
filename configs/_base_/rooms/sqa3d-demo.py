# The demos' SQA3D, 64 wide: VoteNet with two set abstractions, all-MiniLM-L6-v2's
# tokenizer and frozen text encoder, one layer of each kind of attention, no block,
# and the answers of the embedded rooms.
model = dict(
    type='lm4ve.SQA3D',
    data_preprocessor=dict(
        type='lm4ve.SQA3DPreprocessor',
        tokenizer='package:all-MiniLM-L6-v2',
        max_length=32,
    ),
    object_encoder=dict(
        type='lm4ve.VoteNet',
        # Red, green, blue, height.
        in_channels=4,
        # Box, ball, cone, cylinder, in each of four colors.
        mean_sizes=[
            [0.75, 0.75, 0.42],
            [0.65, 0.65, 0.65],
            [0.63, 0.63, 0.85],
            [0.35, 0.35, 0.95],
        ]
        * 4,
        num_points=(128, 64),
        radii=(0.3, 0.6),
        samples=(12, 8),
        channels=((32, 32), (64, 64)),
        propagation=(),
        # With fewer, some things would have none: most lie on the floor and on walls.
        num_proposals=48,
        proposal_radius=0.4,
        proposal_samples=8,
        proposal_channels=64,
        # So small a net does not find out by itself what is where in the room.
        tokens='detections',
    ),
    text_encoder=dict(
        type='lm4ve.TransformersTextEncoder',
        checkpoint='package:all-MiniLM-L6-v2',
        frozen=True,
    ),
    fusion=dict(
        type='lm4ve.GuidedFusion',
        embed_dims=64,
        num_layers=1,
        num_heads=4,
        feedforward_channels=128,
        dropout=0.0,
        norm='layer',
    ),
    neck=None,
    pool=dict(hidden_channels=64, out_channels=64, dropout=0.0),
    head=dict(
        type='lm4ve.SceneAnswerHead',
        answers=[
            *('box', 'ball', 'cone', 'cylinder'),
            *('red', 'green', 'blue', 'yellow'),
            *('yes', 'no', '0', '1', '2'),
        ],
        targets='hard',
        in_channels=192,
        hidden_channels=128,
        dropout=0.0,
    ),
    pose_head=dict(
        type='lm4ve.PoseHead', in_channels=128, hidden_channels=64, dropout=0.0
    ),
    # Detection is learned soon, answers are not.
    loss_weights=dict(
        vote=1.0, objectness=0.5, box=1.0, semantic=1.0, pose=1.0, answer=1.0
    ),
)
