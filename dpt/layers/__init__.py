"""The parts of the network: backbones and their taps, Reassemble, Fusion, heads (section 3)."""
