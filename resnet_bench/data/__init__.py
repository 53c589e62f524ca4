"""From files to batches: data sets, augmentation, pipelines."""
