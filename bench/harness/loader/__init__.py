"""What `unstill bench loader` measures with: paths from shards to clips, ours and those of others."""
