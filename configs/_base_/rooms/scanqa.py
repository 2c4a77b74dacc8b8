# SQA3D's ScanQA baseline, as released: VoteNet on 40,000 points, one LSTM on GloVe's
# vectors for situation and question, guided attention, heads of answers and poses. The
# files are those of its release, and GloVe without a pickle (word_vectors also takes a
# .txt).
model = dict(
    type='lm4ve.SQA3D',
    data_preprocessor=dict(
        type='lm4ve.SQA3DPreprocessor',
        word_vectors='data/glove/glove.6B.300d.npz',
        max_length=100,
    ),
    object_encoder=dict(
        type='lm4ve.VoteNet',
        # Red, green, blue, height.
        in_channels=4,
        mean_sizes='data/scannet/meta_data/scannet_reference_means.npz',
    ),
    text_encoder=dict(
        type='lm4ve.LSTMTextEncoder', in_channels=300, channels=256, dropout=0.3
    ),
    fusion=dict(
        type='lm4ve.GuidedFusion',
        embed_dims=256,
        num_layers=2,
        num_heads=8,
        dropout=0.1,
    ),
    neck=None,
    pool=dict(hidden_channels=256, out_channels=512),
    head=dict(
        type='lm4ve.SceneAnswerHead',
        answers='data/scannet/qa/answer_counter.json',
        in_channels=1536,
        hidden_channels=256,
        dropout=0.3,
    ),
    pose_head=dict(type='lm4ve.PoseHead', in_channels=1024, hidden_channels=256),
)
