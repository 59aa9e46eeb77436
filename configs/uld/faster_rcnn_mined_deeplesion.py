_base_ = "faster_rcnn_deeplesion.py"

# Offline mining, the row R + P+ of Cai et al. in table I with this detector: trained on lesions that
# tools/mine_lesions.py has mined or a person has accepted. In the converter's train_mined.json the
# mined lesions are those of Lesion Harvester.
train_dataloader = dict(
    dataset=dict(
        ann_file="annotations/train_mined.json",
        sources=("recist", "mined", "reviewed"),
    )
)
