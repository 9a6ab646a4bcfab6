"""Conversion of layers and weights to and from ONNX, PyTorch and scikit-learn."""
