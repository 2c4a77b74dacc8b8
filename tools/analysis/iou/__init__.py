"""What ``activation_iou.py`` consists of: masks, scores, the report and its pictures."""
