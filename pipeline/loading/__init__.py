"""Shards -> uint8 clips on the device: sampler, reader, decoder, prefetching loader."""
