"""ONNX Runtime: sessions, execution providers, and the graphs of a bundle. Nothing else imports onnxruntime."""
