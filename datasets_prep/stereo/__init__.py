"""Ground truth of stereo videos by optical flow: `dpt stereo`."""
