"""Teaches ``optimum-cli export onnx`` the model type ``xclip``.

Optimum imports every module of the namespace ``optimum.commands.register`` when its command line starts; that is its
extension point for other distributions. It adds no command, hence no REGISTER_COMMANDS.
"""

import sys

# The registration loads PyTorch, which only this command needs anyway.
if sys.argv[1:3] == ["export", "onnx"]:
    import xclip_export.optimum_config  # noqa: F401
