"""Self-supervised pretraining of the encoder on a desktop: a folder of images in, a RUN folder out."""
