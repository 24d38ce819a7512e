"""The shard format: tar files of fragmented MP4s, their tables, checksums and index."""
