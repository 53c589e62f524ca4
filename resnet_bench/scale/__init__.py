"""`resnet-bench scale`: how the time of a step grows with threads, batch size, images, classes, processes beside it."""
