"""OpenVINO's plugin on processors that are not Intel's: it runs there, but takes no device of another vendor."""

import ctypes

INTEL = 0x8086


def pretend_intel():
    """Give the CPU that ONNX Runtime found Intel's vendor id, before the plugin is registered."""
    from xclip_runtime.inference.installation import onnxruntime  # which turns telemetry off

    (device,) = {d.device for d in onnxruntime().get_ep_devices() if d.ep_name == "CPUExecutionProvider"}
    # The object that the Python object holds, in which the vendor id is one of the first words.
    address = ctypes.cast(id(device) + object.__basicsize__, ctypes.POINTER(ctypes.c_void_p))[0]
    words = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint32))
    words[next(i for i in range(8) if words[i] == device.vendor_id)] = INTEL
    assert device.vendor_id == INTEL
