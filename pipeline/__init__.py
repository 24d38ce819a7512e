"""Raw videos -> shards -> uint8 clips on the device."""
