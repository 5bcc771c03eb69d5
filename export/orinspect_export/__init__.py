"""From a pretrained run to a bundle: ONNX graphs in fp32, fp16 and int8, checked against each other."""
