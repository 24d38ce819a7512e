"""From uint8 frames to what the network sees: frame transforms, masks of people, normalised clips."""
